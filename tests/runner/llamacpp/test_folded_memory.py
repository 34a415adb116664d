"""Places of a sequence, one for each cell, and the positions that they have."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runner.llamacpp.folded_memory import Fold, _read, _written, position_of

FOLDS = st.lists(st.tuples(st.integers(0, 9), st.integers(1, 8), st.integers(1, 8)), max_size=5)


def laid_out(parts: list[tuple[int, int, int]]) -> tuple[list[Fold], list[int]]:
    """Folds with so many places of text before each, and the position of every place outside of them, from 0 on."""
    folds: list[Fold] = []
    positions: list[int] = []
    position = 0
    for text, rows, columns in parts:
        positions += range(position, position + text)
        folds.append(Fold(len(positions), rows * columns, max(rows, columns)))
        positions += [position + text] + [-1] * (rows * columns - 1)
        position += text + max(rows, columns)
    return folds, [*positions, position, position + 1]


@given(FOLDS)
def test_what_follows_an_image_stands_as_many_positions_later_as_its_longer_side_has(
    parts: list[tuple[int, int, int]],
) -> None:
    folds, positions = laid_out(parts)
    for place, position in enumerate(positions):
        if position >= 0:
            assert position_of(place, folds) == position


@given(FOLDS)
def test_what_is_computed_of_an_image_ends_behind_its_position(parts: list[tuple[int, int, int]]) -> None:
    folds, _ = laid_out(parts)
    for fold in folds:
        for place in range(fold.start + 1, fold.end):
            assert position_of(place, folds) == position_of(fold.end, folds)


@given(FOLDS, st.binary(max_size=20))
def test_folds_are_read_as_they_were_written(parts: list[tuple[int, int, int]], state: bytes) -> None:
    folds, _ = laid_out(parts)
    found, rest = _read(memoryview(_written(folds) + state))
    assert (found, bytes(rest)) == (folds, state)
