"""Which bytes of a file are there: a set of ranges without gaps or overlaps between them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator

Range = tuple[int, int]
"""From the first byte to the one after the last."""


class ByteRanges:
    """A set of byte positions, kept as few sorted ranges that do not touch."""

    def __init__(self, *ranges: Range) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self.total = 0
        """How many bytes are in it."""
        for start, end in ranges:
            self.add(start, end)

    def add(self, start: int, end: int) -> None:
        """Put in the bytes from `start` to `end`, whether some are there already or not."""
        if start >= end:
            return
        first = bisect_left(self._ends, start)
        last = bisect_right(self._starts, end)
        if first < last:
            start = min(start, self._starts[first])
            end = max(end, self._ends[last - 1])
        self._replace(first, last, [(start, end)])

    def remove(self, start: int, end: int) -> None:
        """Take out the bytes from `start` to `end`, as far as they are there."""
        if start >= end:
            return
        first = bisect_right(self._ends, start)
        last = bisect_left(self._starts, end)
        if first >= last:
            return
        left = (self._starts[first], start)
        right = (end, self._ends[last - 1])
        self._replace(first, last, [one for one in (left, right) if one[0] < one[1]])

    def clear(self) -> None:
        self._starts.clear()
        self._ends.clear()
        self.total = 0

    def copy(self) -> ByteRanges:
        return ByteRanges(*self)

    def missing(self, start: int, end: int) -> list[Range]:
        """The parts from `start` to `end` that are not there, in order."""
        gaps: list[Range] = []
        for index in range(bisect_right(self._ends, start), len(self._starts)):
            if self._starts[index] >= end:
                break
            if self._starts[index] > start:
                gaps.append((start, self._starts[index]))
            start = self._ends[index]
        if start < end:
            gaps.append((start, end))
        return gaps

    @property
    def prefix(self) -> int:
        """How many bytes are there without a gap from the file's start."""
        return self._ends[0] if self._starts and self._starts[0] == 0 else 0

    def __iter__(self) -> Iterator[Range]:
        return iter(list(zip(self._starts, self._ends, strict=True)))

    def __len__(self) -> int:
        return len(self._starts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ByteRanges) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return f"ByteRanges({', '.join(map(str, self))})"

    def _replace(self, first: int, last: int, ranges: list[Range]) -> None:
        self.total -= sum(self._ends[first:last]) - sum(self._starts[first:last])
        self._starts[first:last] = [start for start, _ in ranges]
        self._ends[first:last] = [end for _, end in ranges]
        self.total += sum(end - start for start, end in ranges)
