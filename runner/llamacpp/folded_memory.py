"""The memory of models whose images take more cells than positions, as those with M-RoPE do.

All cells of such an image have one position, and what follows stands as many positions later as the
image is wide or high. Everybody else counts places, one for each cell; here these become
positions, by the folds that a sequence has:

    place      0  1  2 [3  4  5  6  7  8] 9  10
    position   0  1  2 [3  3  3  3  3  3] 6  7      a fold of 6 places and 3 positions at place 3
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from runner.engine import Chunk, Move
from runner.llamacpp.memory import Memory
from runner.loaded_model import MemoryKind


@dataclass(frozen=True, slots=True)
class Fold:
    """An image in a sequence."""

    start: int
    places: int
    positions: int

    @property
    def end(self) -> int:
        return self.start + self.places


class FoldedMemory(Memory):
    """As Memory. Ranges begin and end outside of folds, or where a sequence ends that is not computed further.

    What is saved tells of the folds in it.
    """

    def __init__(self, context: Any, kind: MemoryKind, max_sequences: int) -> None:
        super().__init__(context, kind, max_sequences)
        self._folds: dict[int, tuple[Fold, ...]] = {}
        """Of the sequences that have any, in their order."""

    @property
    def form(self) -> str:
        return f"{super().form}, with folds"

    def position(self, sequence_id: int, place: int) -> int:
        return position_of(place, self._folds.get(sequence_id, ()))

    def placed(self, chunks: Sequence[Chunk]) -> Sequence[Chunk]:
        if not self._folds:
            return chunks
        return [replace(chunk, start=self.position(chunk.sequence_id, chunk.start)) for chunk in chunks]

    def fold(self, sequence_id: int, fold: Fold) -> None:
        """Note that the first cells of an image were computed."""
        others = self._folds.get(sequence_id, ())
        if fold not in others:
            self._folds[sequence_id] = (*others, fold)

    def remove(self, sequence_id: int) -> None:
        super().remove(sequence_id)
        self._folds.pop(sequence_id, None)

    def cut(self, sequence_id: int, length: int) -> None:
        super().cut(sequence_id, self.position(sequence_id, length))
        self._keep(sequence_id, self._folds.get(sequence_id, ()), length)

    def copy(self, source: int, target: int, length: int) -> None:
        super().copy(source, target, self.position(source, length))
        self._keep(target, self._folds.get(source, ()), length)

    def shift(self, sequence_id: int, keep: int, discard: int) -> None:
        raise AssertionError("llama.cpp cannot shift such a cache, and says so")

    def save(self, sequence_id: int, start: int, end: int) -> memoryview:
        folds = [fold for fold in self._folds.get(sequence_id, ()) if start <= fold.start < end]
        begin, stop = (self.position(sequence_id, place) for place in (start, end))
        return self._saved(sequence_id, begin, stop, head=_written(folds))

    def restore(self, sequence_id: int, state: memoryview, start: int, end: int) -> bool:
        found, cells = _read(state)
        known = self._folds.get(sequence_id, ())
        folds = (*known, *(fold for fold in found if start <= fold.start < end))
        if not super().restore(sequence_id, cells, position_of(start, folds), position_of(end, folds)):
            return False
        self._keep(sequence_id, folds, end)
        return True

    def move_to(self, target: Memory, moves: Sequence[Move]) -> bool:
        has_moved = super().move_to(target, moves)
        if not has_moved and isinstance(target, FoldedMemory):
            target._folds.clear()
        return has_moved

    def _moved_at_once(self, start: int, length: int) -> int:
        """All of it: a range must not end within an image."""
        return length

    def _keep(self, sequence_id: int, folds: Iterable[Fold], length: int) -> None:
        kept = tuple(fold for fold in folds if fold.start < length)
        self._folds.pop(sequence_id, None)
        if kept:
            self._folds[sequence_id] = kept


def position_of(place: int, folds: Iterable[Fold]) -> int:
    """The position of a place; of one within a fold, the position behind that, where what is computed of it ends."""
    position = place
    for fold in folds:
        if place >= fold.end:
            position -= fold.places - fold.positions
        elif place > fold.start:
            position += fold.start + fold.positions - place
    return position


def _written(folds: Sequence[Fold]) -> bytes:
    numbers = [number for fold in folds for number in (fold.start, fold.places, fold.positions)]
    return np.array([len(folds), *numbers], dtype="<i8").tobytes()


def _read(state: memoryview) -> tuple[list[Fold], memoryview]:
    numbers = np.dtype("<i8").itemsize
    count = int(np.frombuffer(state[:numbers], dtype="<i8")[0])
    end = numbers * (1 + 3 * count)
    rows = np.frombuffer(state[numbers:end], dtype="<i8").reshape(count, 3)
    return [Fold(*map(int, row)) for row in rows], state[end:]
