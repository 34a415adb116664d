"""Giving: answers workers that want more memory while they run, for larger windows and for contexts beside."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from datetime import datetime

from runner.messages import (
    Beside,
    Grow,
    GrowFailed,
    Grown,
    KeepWindow,
    RoomGiven,
    RoomRefused,
    RoomWanted,
    WindowWanted,
)
from runner.supervisor.client import MemoryReport
from runner.supervisor.growing import AskLater, Give, GrowTo, Keep, StayAt
from runner.supervisor.memory import gigabytes, holding_of_model
from runner.supervisor.planning import plan_growth, plan_room
from runner.supervisor.policy import Evict
from runner.supervisor.residents import Phase, Resident
from runner.supervisor.table import Table

logger = logging.getLogger(__name__)


class Giving:
    """Decides for residents that are loaded. `evict` unloads idle ones, by key."""

    def __init__(self, table: Table, evict: Callable[[Sequence[str]], None]) -> None:
        self._table = table
        self._evict = evict

    def hear(self, resident: Resident, report: MemoryReport) -> None:
        """Take in what a worker says; what it wants is answered by `answer`."""
        if resident.phase is not Phase.READY:
            return
        match report:
            case WindowWanted(cells):
                resident.wanted_cells = cells
            case RoomWanted(purpose, size):
                resident.wanted_beside[purpose] = size
            case Grown(model):
                resident.loaded = model
                resident.growths += 1
                resident.grown_at = datetime.now().astimezone()
                logger.info("%s: its window has grown to %d tokens", resident.spec.name, model.context_length)
                self._end_growth(resident)
            case GrowFailed(message):
                logger.warning("%s: its window could not grow: %s", resident.spec.name, message)
                self._end_growth(resident)

    def answer(self, resident: Resident) -> None:
        """Grant or refuse what a worker wants, as soon as that can be told."""
        if resident.wanted_cells and not resident.is_growing:
            self._answer_growth(resident)
        for purpose, size in list(resident.wanted_beside.items()):
            self._answer_beside(resident, purpose, size)

    def _answer_growth(self, resident: Resident) -> None:
        assert resident.worker is not None
        table = self._table
        match plan_growth(resident, table.residents.values(), table.machine, table.gpus):
            case GrowTo(window):
                assert resident.plan is not None
                kv = resident.plan.kv_per_token * window
                resident.is_growing, resident.wanted_cells = True, 0
                # Both windows are there while the sequences move.
                resident.holding = resident.holding.plus(kv, on_gpus=resident.holding.vram > 0)
                resident.plan = dataclasses.replace(resident.plan, kv=kv, context_length=window)
                resident.worker.client.send(Grow(window))
            case StayAt(largest):
                logger.info("%s: no memory for a window of %d tokens", resident.spec.name, resident.wanted_cells)
                resident.wanted_cells = 0
                resident.worker.client.send(KeepWindow(largest))
            case Evict(keys):
                self._evict(keys)
            case AskLater():
                pass

    def _end_growth(self, resident: Resident) -> None:
        assert resident.plan is not None
        assert resident.loaded is not None
        window = resident.loaded.context_length
        resident.is_growing = False
        resident.plan = dataclasses.replace(
            resident.plan, kv=resident.plan.kv_per_token * window, context_length=window
        )
        self._count(resident)

    def _answer_beside(self, resident: Resident, purpose: Beside, size: int) -> None:
        assert resident.worker is not None
        more = size - resident.beside.get(purpose, 0)
        table = self._table
        match plan_room(resident, more, table.residents.values(), table.machine, table.gpus) if more > 0 else Give():
            case Give():
                del resident.wanted_beside[purpose]
                resident.beside[purpose] = size
                if resident.is_growing:
                    resident.holding = resident.holding.plus(more, on_gpus=resident.holding.vram > 0)
                else:
                    self._count(resident)
                resident.worker.client.send(RoomGiven(purpose, size))
            case Keep(available):
                logger.info("%s: no memory for %s of %s", resident.spec.name, gigabytes(size), purpose.value)
                del resident.wanted_beside[purpose]
                resident.worker.client.send(RoomRefused(purpose, size, available))
            case Evict(keys):
                self._evict(keys)
            case AskLater():
                pass

    def _count(self, resident: Resident) -> None:
        assert resident.plan is not None
        assert resident.loaded is not None
        beside = sum(resident.beside.values())
        resident.holding = holding_of_model(resident.plan, resident.loaded, self._table.gpus, beside)
