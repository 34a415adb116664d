"""Memory beside the weights and the main context: reserved with the daemon before it is taken."""

from __future__ import annotations

import enum
from collections.abc import Callable

from runner.chat.types import Failed
from runner.errors import InsufficientMemory
from runner.messages import Beside, Report, RoomGiven, RoomRefused, RoomWanted


class Answer(enum.Enum):
    """What is known of a wish for memory."""

    GIVEN = enum.auto()
    ASKED = enum.auto()
    """Look again later."""
    REFUSED = enum.auto()
    """Told once; who wishes again has it asked again."""


class Reserve:
    """What was given for each purpose. Used on the engine thread.

    Memory is the daemon's to give, and other models may have to go for it; who needs none of it goes on meanwhile.
    """

    def __init__(self, emit: Callable[[Report], None]) -> None:
        self._emit = emit
        self._given: dict[Beside, int] = {}
        self._asked: dict[Beside, int] = {}
        self._refused: dict[Beside, RoomRefused] = {}

    def ask(self, purpose: Beside, size: int) -> Answer:
        """Whether there are `size` bytes for a purpose, with what it has already."""
        given = self._given.get(purpose, 0)
        if size < given:
            # After growing, what was there before is gone. This is never refused, so nobody waits for the answer.
            self._given[purpose] = size
            self._emit(RoomWanted(purpose, size))
        if size <= given:
            return Answer.GIVEN
        if purpose in self._refused and size >= self._refused[purpose].size:
            return Answer.REFUSED
        self._refused.pop(purpose, None)
        if purpose not in self._asked:
            self._asked[purpose] = size
            self._emit(RoomWanted(purpose, size))
        return Answer.ASKED

    def is_asked(self, purpose: Beside) -> bool:
        """Whether an answer is under way."""
        return purpose in self._asked

    def refusal(self, purpose: Beside, what: str, wish: str = "Ask for less at a time") -> Failed:
        """The error of the one request that the refusal is for: no memory for `what`; `wish` may help."""
        refused = self._refused.pop(purpose)
        message = (
            f"There is no memory for {what}: it takes {refused.size // 1_000_000:,} MB beside the model, and "
            f"{refused.available // 1_000_000:,} MB can be had. {wish}, or unload another model."
        )
        facts: dict[str, str | int | float | bool | None] = {"needed": refused.size, "available": refused.available}
        return Failed(InsufficientMemory.code, message, facts)

    def take(self, answer: RoomGiven | RoomRefused) -> None:
        """The daemon's answer to the question for this purpose; one to a smaller wish tells nothing."""
        asked = self._asked.get(answer.purpose)
        if asked is None or asked != answer.size:
            return
        del self._asked[answer.purpose]
        if isinstance(answer, RoomGiven):
            self._given[answer.purpose] = asked
        else:
            self._refused[answer.purpose] = answer
