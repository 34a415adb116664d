"""Events on their way to the daemon: those of quick steps go out together."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from runner.chat.types import ChatEvent
from runner.messages import Events, Report

TOGETHER_NS = 25_000_000
"""How long text may wait for that of the next steps: a frame wakes the daemon on a processor that computes."""


class Outbox:
    """Collects events and tokens in order until they are sent as one frame. Used on the engine thread only."""

    def __init__(self, emit: Callable[[Report], None], clock: Callable[[], int]) -> None:
        self._emit = emit
        self._clock = clock
        self._events: list[tuple[str, ChatEvent]] = []
        self._taken: list[tuple[str, int]] = []
        """Tokens that no frame has told of yet."""
        self._sent_ns = 0
        self.is_urgent = False
        """The first or the last of an answer is here, or a request was cancelled: somebody looks after it."""

    def add(self, request_id: str, *events: ChatEvent) -> None:
        self._events += [(request_id, event) for event in events]

    def add_all(self, events: Iterable[tuple[str, ChatEvent]]) -> None:
        self._events += events

    def take(self, request_id: str, token: int) -> None:
        """A token became part of an answer, whether any text came of it or not."""
        self._taken.append((request_id, token))

    def may_wait(self, until_ns: float) -> bool:
        """Whether what is here may go out with what comes by then."""
        return not self.is_urgent and until_ns <= self._sent_ns + TOGETHER_NS

    def send(self) -> None:
        if self._events:
            self._emit(Events(self._events, self._taken))
            self._events, self._taken = [], []
            self.is_urgent, self._sent_ns = False, self._clock()
