"""How many threads the machine carries at the moment, told by the processor time they got and by processors at rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_SPAN_NS = 100_000_000
"""Computing to see before it is judged."""
_SPANS = 2
"""So many in a row have to lack processors: in one, programs that only wake up, the daemon among them when many
requests arrive, look like a neighbour; and what a neighbour costs until then is little."""
_LACKING = 0.4
"""Processors that threads waited for; whoever waits holds up the others at every barrier."""
_LOOK_NS = 250_000_000
"""How long processors have to be at rest."""
_FREE = 0.7
"""The part of a processor that has to be at rest for a further thread."""
_COMPUTING = 0.7
"""The part of that time that has to be computing: in pauses our own processors rest as well."""
_FIRST_PAUSE_NS = 250_000_000
_LONGEST_PAUSE_NS = 16_000_000_000
_PROOF_NS = 1_000_000_000
"""A larger number that is kept for so long was no mistake."""


class Headroom:
    """The largest number of threads that are not kept waiting for processors.

    Threads of one step meet at hundreds of barriers. When one has no processor, all wait for the
    neighbour's time slice to end, again and again, and a step takes many times as long. So a number
    that does not get its processor time is given up at once, and tried again when processors rest.
    """

    def __init__(self, ladder: Sequence[int], idle: Callable[[], float | None]) -> None:
        """`idle` tells how many processors were at rest since it was last asked, or None when that is not known."""
        self._ladder = ladder
        self._place = len(ladder) - 1
        self._idle = idle
        self._ns = self._processor_ns = 0
        """Of the steps with the present number, since it was last judged."""
        self._lacking = 0
        """Spans in a row, up to the last one, in which processors were lacking."""
        self._look_began = self._look_computed = self._last_end = 0
        self._raised_at = 0
        self._next_raise = 0
        self._pause_ns = _FIRST_PAUSE_NS

    @property
    def place(self) -> int:
        """Where on the ladder the limit is."""
        return self._place

    def begin(self, now: int) -> None:
        """A step begins."""
        if now - self._last_end > _LOOK_NS // 4:
            self._begin_look(now)

    def observe(self, threads: int, ns: int, processor_ns: int, now: int) -> bool:
        """A step ended that took `ns`, and `processor_ns` of all processors; True when the limit is another now."""
        self._last_end = now
        self._look_computed += ns
        before = self._place
        if threads == self._ladder[self._place]:
            self._judge(threads, ns, processor_ns, now)
        if now - self._look_began >= _LOOK_NS:
            self._look(now)
        return self._place != before

    def _judge(self, threads: int, ns: int, processor_ns: int, now: int) -> None:
        self._ns += ns
        self._processor_ns += processor_ns
        if self._ns < _SPAN_NS:
            return
        got = self._processor_ns / self._ns
        self._ns = self._processor_ns = 0
        if not self._place or threads - got < _LACKING:
            self._lacking = 0
            if now - self._raised_at > _PROOF_NS:
                self._pause_ns = _FIRST_PAUSE_NS
            return
        self._lacking += 1
        if self._lacking < _SPANS:
            return
        self._lacking = 0
        if now - self._raised_at < _PROOF_NS:
            self._pause_ns = min(2 * self._pause_ns, _LONGEST_PAUSE_NS)
        self._next_raise = now + self._pause_ns
        self._place -= 1
        while self._place and self._ladder[self._place] > got + _LACKING:
            self._place -= 1

    def _look(self, now: int) -> None:
        is_telling = self._look_computed >= _COMPUTING * (now - self._look_began)
        idle = self._begin_look(now)
        if not is_telling or now < self._next_raise or self._place + 1 == len(self._ladder):
            return
        here, above = self._ladder[self._place : self._place + 2]
        if idle is None or idle >= _FREE * (above - here):
            self._place += 1
            self._raised_at = now
            self._ns = self._processor_ns = self._lacking = 0

    def _begin_look(self, now: int) -> float | None:
        self._look_began, self._look_computed = now, 0
        return self._idle()
