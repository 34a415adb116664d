"""What one rendering of a template may use: processor time and text."""

from __future__ import annotations

import time

MAX_SECONDS = 2.0
"""Of processor time for one rendering; published templates take milliseconds."""
MAX_CHARACTERS = 8_000_000
"""That one rendering may put together, pieces of pieces counted again; more for a longer conversation."""


class OverBudget(Exception):
    """A template takes too long or makes too much."""


class Budget:
    """What one rendering may still use. It belongs to the thread that made it."""

    def __init__(self, conversation_characters: int, seconds: float = MAX_SECONDS) -> None:
        self._characters = MAX_CHARACTERS + 8 * conversation_characters
        self._until = time.thread_time() + seconds

    def tick(self) -> None:
        """Raises OverBudget when the time is over."""
        if time.thread_time() > self._until:
            raise OverBudget("it takes too long")

    def spend(self, characters: int) -> None:
        """Raises OverBudget when that is more than is left."""
        self._characters -= characters
        if self._characters < 0:
            raise OverBudget("it makes too long a text")
