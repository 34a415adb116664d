"""A larger window: made beside the steps, and moved into between two of them."""

from __future__ import annotations

import threading
from collections.abc import Callable

from runner.engine import Engine
from runner.errors import InsufficientMemory
from runner.messages import GrowFailed, Grown, Report
from runner.worker.commands import WindowMade
from runner.worker.draft_plan import DraftPlan
from runner.worker.growth import Growth
from runner.worker.keeper import Keeper

Aside = Callable[[Callable[[], None]], None]
"""Has some work done beside the engine thread."""


class WindowChange:
    """Does what the daemon grants, one window at a time. Used on the engine thread."""

    def __init__(
        self,
        engine: Engine,
        keeper: Keeper,
        growth: Growth,
        draft_plan: DraftPlan,
        emit: Callable[[Report], None],
        post: Callable[[WindowMade], None],
        aside: Aside,
    ) -> None:
        """`post` hears of windows that are made, on any thread."""
        self._engine = engine
        self._keeper = keeper
        self._growth = growth
        self._draft_plan = draft_plan
        self._emit = emit
        self._post = post
        self._aside = aside
        self._is_making = False
        self._wanted = 0
        """While another one is made."""

    def begin(self, size: int) -> None:
        """Have a larger window made; steps go on meanwhile."""
        if self._is_making:
            self._wanted = max(self._wanted, size)
        elif size > self._engine.info.context_length:
            self._is_making = True
            self._aside(lambda: self._post(self._make(size)))
        else:
            self._tell()

    def finish(self, made: WindowMade) -> None:
        """Move into the window that was made, or tell why there is none."""
        self._is_making = False
        if made.window is None:
            self._emit(GrowFailed(made.failure))
            self._growth.was_refused(self._engine.info.context_length)
        else:
            self._keeper.move_into(made.window)
            self._draft_plan.restart(self._engine.info.context_length)
            self._tell()
        if wanted := self._wanted:
            self._wanted = 0
            self.begin(wanted)

    def _make(self, size: int) -> WindowMade:
        try:
            return WindowMade(self._engine.make_window(size))
        except InsufficientMemory as error:
            return WindowMade(None, error.message)

    def _tell(self) -> None:
        self._emit(Grown(self._engine.info))
        self._growth.was_given()


def on_a_thread(work: Callable[[], None]) -> None:
    """Does it on a thread of its own, which does not keep the process."""
    threading.Thread(target=work, name="window", daemon=True).start()
