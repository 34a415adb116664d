"""Shares a file's missing bytes out among connections, so that no slow one holds up the end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from registry.byte_ranges import Range

SEGMENT_BYTES = 16 << 20
"""The most that is asked for in one request."""
MIN_SEGMENT_BYTES = 1 << 20
_MIN_SPLIT_BYTES = 64 << 10
_SLOW_SECONDS = 1.5
"""Bytes that will take their connection longer than this are worth a request of their own."""
_STALLED_SECONDS = 3.0


@dataclass(slots=True, eq=False)
class Span:
    """Bytes that one connection is fetching. `end` may come nearer while it does."""

    position: int
    """The next byte to be received."""
    end: int
    started: float
    begun: int
    last: float
    """When something was received."""

    @property
    def left(self) -> int:
        return self.end - self.position

    def receive(self, count: int, now: float) -> None:
        self.position += count
        self.last = now

    def seconds_left(self, now: float) -> float:
        """How long the rest will take at the pace so far."""
        received, taken = self.position - self.begun, now - self.started
        if received == 0:
            return taken
        return self.left * taken / received


class Share:
    """Owns which bytes are waiting and which are being fetched. Decides, and does nothing else."""

    def __init__(self, gaps: Iterable[Range], segment_bytes: int = SEGMENT_BYTES) -> None:
        self._waiting = sorted(gaps, reverse=True)
        self._active: list[Span] = []
        self.segment_bytes = segment_bytes
        """The most that is given out at once."""

    @property
    def is_over(self) -> bool:
        """Nothing is waiting and nothing is being fetched."""
        return not self._waiting and not self._active

    def add(self, start: int, end: int) -> None:
        """More bytes are wanted than was known."""
        if start < end:
            self._waiting.append((start, end))
            self._waiting.sort(reverse=True)

    def take(self, now: float) -> Span | None:
        """The next bytes to fetch: from the front of what is waiting, else from the slowest connection.

        None when there is nothing worth a request, now.
        """
        if self._waiting:
            start, end = self._waiting.pop()
            middle = min(end, start + self.segment_bytes)
            if middle < end:
                self._waiting.append((middle, end))
            return self._begin(start, middle, now)
        slowest = max(self._active, key=lambda span: span.seconds_left(now), default=None)
        return None if slowest is None else self._split(slowest, now)

    def give_back(self, span: Span) -> None:
        """The span is not being fetched any more; what it lacks waits again."""
        self._active.remove(span)
        self.add(span.position, span.end)

    def _split(self, span: Span, now: float) -> Span | None:
        if span.left <= 0:
            return None
        if now - span.last >= _STALLED_SECONDS:
            start = span.position
        elif span.left >= 2 * _MIN_SPLIT_BYTES and span.seconds_left(now) >= _SLOW_SECONDS:
            start = span.end - span.left // 2
        else:
            return None
        end, span.end = span.end, start
        return self._begin(start, end, now)

    def _begin(self, start: int, end: int, now: float) -> Span:
        span = Span(start, end, now, start, now)
        self._active.append(span)
        return span


def segment_bytes(size: int, connections: int) -> int:
    """How much to ask for at once, so that a small file too is spread over all connections."""
    return max(MIN_SEGMENT_BYTES, min(SEGMENT_BYTES, size // (2 * connections)))
