"""Resident: one row of the supervisor's table, and those who wait for it."""

from __future__ import annotations

import asyncio
import enum
import math
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime

from runner.loaded_model import LoadedModel, LoadOptions
from runner.messages import Beside
from runner.supervisor.lease import Lease
from runner.supervisor.line import Line
from runner.supervisor.memory import Holding, MemoryPlan
from runner.supervisor.policy import Occupant
from runner.supervisor.process import WorkerProcess
from runner.supervisor.types import LoadWishes, ModelSpec


class Phase(enum.Enum):
    """Where a model is between wanted and gone.

    WANTED ──▶ LOADING ──▶ READY ──▶ STOPPING ──▶ forgotten
       ▲          └───────aborted───────▲  │
       ├──────────crashed───────┘          │
       └──────────someone waits────────────┘
    """

    WANTED = enum.auto()
    """No process: waiting for memory, or for the pause after a crash to pass."""
    LOADING = enum.auto()
    READY = enum.auto()
    STOPPING = enum.auto()


@dataclass(eq=False, slots=True)
class Waiter:
    """One `lease` call that has not been answered."""

    ticket: int
    """Rises with every call: who came first."""
    spec: ModelSpec
    keep_alive: float | None
    answer: asyncio.Future[Lease]
    since_ns: int
    is_served: bool = False
    """A load was made for its wishes: whatever came of them, it is not made again."""
    is_feasible: bool = False
    """Its wishes were found to fit into memory."""


@dataclass(eq=False, slots=True)
class Resident:
    """A model that is loaded, or should be. Changed by the supervisor alone."""

    spec: ModelSpec
    usual_keep_alive: float
    """Unless a request says otherwise."""
    line: Line
    """The requests of its leases."""
    keep_alive: float = field(init=False)
    phase: Phase = Phase.WANTED
    worker: WorkerProcess | None = None
    waiters: deque[Waiter] = field(default_factory=deque)
    leases: set[Lease] = field(default_factory=set)
    wishes: LoadWishes = field(default_factory=LoadWishes)
    """The union that it was last loaded with."""
    plan: MemoryPlan | None = None
    options: LoadOptions | None = None
    loaded: LoadedModel | None = None
    holding: Holding = field(default_factory=lambda: Holding(0, 0))
    expires_at: float = math.inf
    """On the monotonic clock; counts while nobody uses the model."""
    last_used: int = 0
    """Rises with every use of any model."""
    not_before: float = 0.0
    """Pause after a crash."""
    room_from: WorkerProcess | None = None
    """Evicted because the engine found too little memory: load again when it is gone."""
    is_kept: bool = False
    """Crashed while it was resident: load it again although nobody waits."""
    is_dismissed: bool = False
    """It goes as soon as nobody uses it, whatever its keep-alive."""
    beside: dict[Beside, int] = field(default_factory=dict)
    """Bytes that were given for contexts beside the main one."""
    wanted_beside: dict[Beside, int] = field(default_factory=dict)
    """Its worker asked for so many, and was not answered yet."""
    wanted_cells: int = 0
    """Its worker asked for a window of so many, and was not answered yet."""
    is_growing: bool = False
    growths: int = 0
    grown_at: datetime | None = None
    restarts: int = 0
    last_reload_reason: str | None = None

    def __post_init__(self) -> None:
        self.keep_alive = self.usual_keep_alive

    @property
    def key(self) -> str:
        return self.spec.weights_digest

    @property
    def is_used(self) -> bool:
        return bool(self.leases or self.waiters)

    @property
    def ticket(self) -> float:
        """Who came first of those who want it loaded; requests that a crash interrupted came before all others."""
        if self.leases:
            return 0
        return self.waiters[0].ticket if self.waiters else math.inf

    @property
    def places(self) -> int:
        """Leases at a time. A few more than the worker runs at once, so that the next are prepared by then."""
        sequences = 1 if self.loaded is None else self.loaded.max_sequences
        return sequences + max(2, sequences // 2)

    def stays_until(self, now: float) -> float:
        """When it goes if its last use ends now."""
        return -math.inf if self.is_dismissed else now + self.keep_alive

    def dismiss(self) -> None:
        """Let it go as soon as nobody uses it. Who comes when it has gone finds it as if it had never been there."""
        self.is_dismissed, self.is_kept = True, False
        self.keep_alive = self.usual_keep_alive
        self.expires_at = -math.inf

    def lose_worker(self) -> None:
        """Its process is gone, with all that it held."""
        self.is_dismissed = self.is_dismissed and self.phase is not Phase.STOPPING
        self.phase = Phase.WANTED
        self.worker = None
        self.loaded = None
        self.holding = Holding(0, 0)
        self.wanted_cells, self.is_growing = 0, False
        self.beside.clear()
        self.wanted_beside.clear()

    def occupant(self, ticket: float, *, is_leaving: bool = False) -> Occupant:
        """As whoever wants room since `ticket` sees it: those who came later do not make it busy."""
        is_waited_for = bool(self.waiters) and self.waiters[0].ticket < ticket
        return Occupant(
            key=self.key,
            holding=self.holding,
            is_idle=self.phase is Phase.READY and not self.leases and not is_waited_for,
            is_leaving=is_leaving or self.phase is Phase.STOPPING,
            last_used=self.last_used,
        )
