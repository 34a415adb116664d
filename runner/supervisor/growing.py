"""What memory says to a loaded model that wants a larger window."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from runner.loaded_model import LoadedModel
from runner.supervisor.memory import WINDOW_STEP, MemoryPlan, Room
from runner.supervisor.policy import Evict, Occupant


@dataclass(frozen=True, slots=True)
class GrowTo:
    """There is memory for this window."""

    context_length: int


@dataclass(frozen=True, slots=True)
class StayAt:
    """There is not, not even when everybody else who is idle went."""

    largest: int
    """The largest window that there is memory for."""


@dataclass(frozen=True, slots=True)
class AskLater:
    """Somebody is leaving, whose memory may be what is missing."""


@dataclass(frozen=True, slots=True)
class Give:
    """There is memory for it."""


@dataclass(frozen=True, slots=True)
class Keep:
    """There is not, not even when everybody else who is idle went."""

    available: int
    """What there is, in bytes."""


RoomDecision = Give | Keep | AskLater | Evict
GrowDecision = GrowTo | StayAt | AskLater | Evict


def decide_room(more: int, loaded: LoadedModel, room: Room, others: Sequence[Occupant]) -> RoomDecision:
    """Whether a model gets so many bytes more. Idle models go for it, least recently used first, as few as it takes."""
    if more <= _free(loaded, room):
        return Give()
    made = _make_room(lambda room: more <= _free(loaded, room), room, others)
    return Keep(_free(loaded, made)) if isinstance(made, Room) else made


def _free(loaded: LoadedModel, room: Room) -> int:
    """Where the model is."""
    return room.vram if loaded.size_vram and room.vram is not None else room.ram


def _make_room(is_enough: Callable[[Room], bool], room: Room, others: Sequence[Occupant]) -> AskLater | Evict | Room:
    """Who goes so that there is enough; the room without all who are idle, if that is too little."""
    if any(other.is_leaving for other in others):
        return AskLater()
    gone = []
    for other in sorted((other for other in others if other.is_idle), key=lambda other: other.last_used):
        gone.append(other.key)
        room = _without(room, other)
        if is_enough(room):
            return Evict(tuple(gone))
    return room


def _without(room: Room, other: Occupant) -> Room:
    vram = None if room.vram is None else room.vram + other.holding.vram
    return Room(room.ram + other.holding.ram, vram)


def largest_window(plan: MemoryPlan, loaded: LoadedModel, room: Room) -> int:
    """The largest window that fits beside the one that is loaded: both are there while the sequences move."""
    free = _free(loaded, room)
    fits = loaded.reach if plan.kv_per_token <= 0 else free // plan.kv_per_token
    return max(loaded.context_length, min(loaded.reach, fits - fits % WINDOW_STEP))


def largest_at_first(plan: MemoryPlan, room: Room) -> int:
    """As `largest_window`, for a model that is about to be loaded."""
    free = room.vram if room.vram is not None and room.vram >= plan.needed else room.ram
    fits = plan.longest if plan.kv_per_token <= 0 else (free - plan.needed) // plan.kv_per_token
    return max(plan.context_length, min(plan.longest, fits - fits % WINDOW_STEP))


def next_window(cells: int, loaded: LoadedModel, largest: int) -> int | None:
    """The window for so many cells: twice what there is, so that growing is seldom; None when they do not fit."""
    if cells > largest:
        return None
    wanted = max(cells, 2 * loaded.context_length)
    return min(-(-wanted // WINDOW_STEP) * WINDOW_STEP, largest)


def decide_growth(
    cells: int, plan: MemoryPlan, loaded: LoadedModel, room: Room, others: Sequence[Occupant]
) -> GrowDecision:
    """Whether a model gets its cells. Idle models go for it, least recently used first, as few as it takes."""
    largest = largest_window(plan, loaded, room)
    if (window := next_window(cells, loaded, largest)) is not None:
        return GrowTo(window)
    made = _make_room(lambda room: cells <= largest_window(plan, loaded, room), room, others)
    return StayAt(largest) if isinstance(made, Room) else made
