"""Turns of the loop, of steps and of everything else: counted, and told to the daemon with what happened in them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from runner.engine import Engine
from runner.worker.outbox import Outbox

STATS_INTERVAL_NS = 500_000_000


@dataclass(slots=True)
class Totals:
    """What a loop has done since its model was loaded."""

    steps: int = 0
    rows: int = 0
    sampled: int = 0
    step_ns: int = 0
    native_ns: int = 0


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn that has begun."""

    started_ns: int
    native_ns: int
    """Spent inside the inference library by then."""


class Turns:
    """Counts the turns. Owned by the loop."""

    def __init__(
        self, engine: Engine, outbox: Outbox, tell: Callable[[Totals], None], clock: Callable[[], int]
    ) -> None:
        """`tell` has the daemon know the totals, and how things stand."""
        self.totals = Totals()
        self._engine = engine
        self._outbox = outbox
        self._tell = tell
        self._clock = clock
        self._told_ns = 0

    def begin(self) -> Turn:
        return Turn(self._clock(), self._native_ns)

    def close(self, turn: Turn, rows: int) -> None:
        """Count a turn. What ended in it goes out behind the totals: who looks after an answer finds it counted."""
        totals = self.totals
        totals.steps += 1
        totals.rows += rows
        totals.step_ns += self._clock() - turn.started_ns
        totals.native_ns += self._native_ns - turn.native_ns
        if self._outbox.is_urgent:
            self.report(force=True)
            self._outbox.send()

    def report(self, *, force: bool) -> None:
        """Tell how things stand, if it is time."""
        now = self._clock()
        if force or now - self._told_ns >= STATS_INTERVAL_NS:
            self._told_ns = now
            self._tell(self.totals)

    @property
    def _native_ns(self) -> int:
        draft = self._engine.draft
        return self._engine.native_ns + (draft.native_ns if draft is not None else 0)
