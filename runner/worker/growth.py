"""Asks for a larger window when requests need more cells than there are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from runner.engine import Engine
from runner.messages import Report, WindowWanted

ASK_AGAIN_NS = 5_000_000_000
"""How long a refusal holds: memory may become free."""


@dataclass(frozen=True, slots=True)
class AwaitWindow:
    """Call `go_on` when a window of so many cells is there, or will not be."""

    cells: int
    go_on: Callable[[], None]


class Growth:
    """What the window may still become. One question is under way at a time. Used on the engine thread.

    Memory is the daemon's to give, so the worker asks it; what it needs no more cells for goes on
    meanwhile.
    """

    def __init__(
        self, engine: Engine, emit: Callable[[Report], None], clock: Callable[[], int], *, largest: int = 0
    ) -> None:
        """`largest` is the window that there is memory for, where that is known."""
        self.largest = largest or engine.info.reach
        """As far as is known; may be read from any thread."""
        self._engine = engine
        self._emit = emit
        self._clock = clock
        self._is_asking = False
        self._refused_until = 0
        self._awaiting: list[AwaitWindow] = []

    def may_give(self, cells: int) -> bool:
        """Whether a larger window may come for so many cells; has it asked for. A later look shows what came of it."""
        info = self._engine.info
        cells = min(cells, info.reach)
        if cells <= info.context_length:
            return False
        if self._is_asking:
            return True
        if cells > self.largest and self._clock() < self._refused_until:
            return False
        self._is_asking = True
        self._emit(WindowWanted(cells))
        return True

    def wait(self, one: AwaitWindow) -> None:
        """Have somebody told when it is clear whether there is room for it."""
        if self.may_give(one.cells):
            self._awaiting.append(one)
        else:
            one.go_on()

    def was_refused(self, largest: int) -> None:
        """There is memory for a window of `largest` cells and no more."""
        self.largest = max(largest, self._engine.info.context_length)
        self._refused_until = self._clock() + ASK_AGAIN_NS
        self._settle()

    def was_given(self) -> None:
        """The window is what `info` tells now."""
        self.largest = max(self.largest, self._engine.info.context_length)
        self._settle()

    def _settle(self) -> None:
        self._is_asking = False
        awaiting, self._awaiting = self._awaiting, []
        for one in awaiting:
            self.wait(one)
