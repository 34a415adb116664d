"""Which KV cells are in use, counted once however many sequences share them."""

from __future__ import annotations

from runner.engine import Move


class _Run:
    """Consecutive cells, continued by other runs or by the sequence that ends in it."""

    __slots__ = ("end", "parent", "start", "users")

    def __init__(self, parent: _Run | None, start: int, end: int) -> None:
        self.parent = parent
        self.start = start
        self.end = end
        self.users = 0
        """Runs that go on from this one, and the sequence whose last run it is."""


class CellLedger:
    """A tree of runs. Every sequence ends in a run of its own, so that it can grow.

    Mirrors what the engine is told to do, which does not tell itself how many cells are in use.
    """

    def __init__(self) -> None:
        self.used = 0
        self._last: dict[int, _Run] = {}

    def length(self, sequence_id: int) -> int:
        """How many positions a sequence holds, from 0."""
        run = self._last.get(sequence_id)
        return 0 if run is None else run.end

    def own_from(self, sequence_id: int) -> int:
        """The first position from which on no other sequence shares its cells."""
        run = self._last.get(sequence_id)
        return 0 if run is None else run.start

    def grow(self, sequence_id: int, count: int) -> None:
        """A sequence got `count` cells of its own behind those it has."""
        run = self._last.get(sequence_id)
        if run is None:
            run = self._last[sequence_id] = _Run(None, 0, 0)
            run.users = 1
        run.end += count
        self.used += count

    def copy(self, source: int, target: int, length: int) -> None:
        """`target`, which holds nothing, shares the first `length` cells of `source`."""
        assert not self.length(target)
        self.remove(target)
        self._end_in(target, self._upto(self._last[source], length), length)

    def cut(self, sequence_id: int, length: int) -> None:
        """A sequence gave back its positions from `length` on."""
        old = self._last.pop(sequence_id)
        self._end_in(sequence_id, self._upto(old, length), length)
        self._release(old)

    def remove(self, sequence_id: int) -> None:
        """A sequence gave back everything."""
        run = self._last.pop(sequence_id, None)
        if run is not None:
            self._release(run)

    def shift(self, sequence_id: int, discard: int) -> None:
        """A sequence gave back `discard` of the cells that are its own, and moved the rest down."""
        run = self._last[sequence_id]
        assert run.end - discard >= run.start
        run.end -= discard
        self.used -= discard

    def moves(self) -> list[Move]:
        """In which order, and sharing what, all sequences can be made anew elsewhere with as many cells as now."""
        moves: list[Move] = []
        placed: dict[_Run, int] = {}
        for sequence_id in sorted(self._last):
            way = []
            run: _Run | None = self._last[sequence_id]
            while run is not None and run not in placed:
                way.append(run)
                run = run.parent
            length = self.length(sequence_id)
            if run is not None and run.end:
                moves.append(Move(sequence_id, length, placed[run], run.end))
            elif length:
                moves.append(Move(sequence_id, length))
            placed.update(dict.fromkeys(way, sequence_id))
        return moves

    def _end_in(self, sequence_id: int, parent: _Run | None, at: int) -> None:
        run = self._last[sequence_id] = _Run(parent, at, at)
        run.users = 1
        if parent is not None:
            parent.users += 1

    def _upto(self, last: _Run, length: int) -> _Run | None:
        """The run that ends at `length` on the way to `last`; one that crosses it, and `last` itself, is divided."""
        run: _Run | None = last
        while run is not None and run.start >= length:
            run = run.parent
        if run is None or (run is not last and run.end == length):
            return run
        return self._divide(run, length)

    def _divide(self, run: _Run, length: int) -> _Run:
        upper = _Run(run.parent, run.start, length)
        upper.users = 1
        run.parent, run.start = upper, length
        return upper

    def _release(self, run: _Run | None) -> None:
        while run is not None:
            run.users -= 1
            if run.users:
                return
            self.used -= run.end - run.start
            run = run.parent
