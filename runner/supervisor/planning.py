"""How a model would be loaded now: with which wishes, how much memory, and who has to go for it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from runner.errors import InsufficientMemory
from runner.supervisor.growing import GrowDecision, RoomDecision, decide_growth, decide_room, largest_window
from runner.supervisor.memory import (
    Gpus,
    Machine,
    MemoryPlan,
    Room,
    free_room,
    plan_memory,
    shortage,
)
from runner.supervisor.policy import LoadDecision, Refuse, make_room, merge_wishes
from runner.supervisor.residents import Resident
from runner.supervisor.types import LoadWishes


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """A load that could be tried, and what the memory there is says to it."""

    wishes: LoadWishes
    memory: MemoryPlan
    room: Room
    decision: LoadDecision


def plan_load(resident: Resident, residents: Iterable[Resident], machine: Machine, gpus: Gpus) -> LoadPlan:
    """How to load a model: the first waiter's wishes, and of the others' those that fit as well.

    Wishes that were loaded before count last, so that two clients who want different things
    end with one worker that serves both; they count first while requests wait for a crashed worker's successor.
    """
    others = [other for other in residents if other.worker is not None]
    room = free_room(machine, gpus, [other.holding for other in others])
    occupants = [other.occupant(resident.ticket, is_leaving=other is resident) for other in others]

    def planned(wishes: LoadWishes) -> LoadPlan:
        memory = plan_memory(resident.spec.memory, wishes, room)
        return LoadPlan(wishes, memory, room, make_room(memory.needed, room, occupants, uses_gpu=wishes.num_gpu != 0))

    waiting = [waiter.spec.wishes for waiter in resident.waiters]
    is_interrupted = resident.worker is None and resident.leases
    first, *more = dict.fromkeys([resident.wishes, *waiting] if is_interrupted else [*waiting, resident.wishes])
    best = planned(first)
    if not isinstance(best.decision, Refuse):
        for wishes in more:
            union = merge_wishes(best.wishes, wishes)
            if union != best.wishes and not isinstance((wider := planned(union)).decision, Refuse):
                best = wider
    return best


def plan_growth(resident: Resident, residents: Iterable[Resident], machine: Machine, gpus: Gpus) -> GrowDecision:
    """Whether a model that is loaded gets the cells it wants."""
    assert resident.plan is not None
    assert resident.loaded is not None
    present = [other for other in residents if other.worker is not None]
    others = [other.occupant(math.inf) for other in present if other is not resident]
    room = free_room(machine, gpus, [other.holding for other in present])
    return decide_growth(resident.wanted_cells, resident.plan, resident.loaded, room, others)


def plan_room(
    resident: Resident, more: int, residents: Iterable[Resident], machine: Machine, gpus: Gpus
) -> RoomDecision:
    """Whether a model that is loaded gets so many bytes more."""
    assert resident.loaded is not None
    present = [other for other in residents if other.worker is not None]
    others = [other.occupant(math.inf) for other in present if other is not resident]
    return decide_room(more, resident.loaded, free_room(machine, gpus, [other.holding for other in present]), others)


def largest_windows(residents: Iterable[Resident], machine: Machine, gpus: Gpus) -> dict[str, int]:
    """How far the window of each loaded model could grow now, by its key."""
    present = [resident for resident in residents if resident.worker is not None]
    room = free_room(machine, gpus, [resident.holding for resident in present])
    return {
        resident.key: largest_window(resident.plan, resident.loaded, room)
        for resident in present
        if resident.plan is not None and resident.loaded is not None
    }


def shortage_of(plan: LoadPlan, resident: Resident) -> InsufficientMemory | None:
    """The error for the first waiter, when the plan fits not even alone; else None."""
    if not isinstance(plan.decision, Refuse):
        return None
    spec = resident.waiters[0].spec if resident.waiters else resident.spec
    return shortage(spec.name, spec.memory, plan.memory, plan.decision.room)
