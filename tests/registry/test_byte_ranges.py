"""Ranges of bytes behave as the set of positions they stand for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from registry.byte_ranges import ByteRanges

LIMIT = 60
SPANS = st.tuples(st.integers(0, LIMIT), st.integers(0, LIMIT))
STEPS = st.lists(st.tuples(st.booleans(), SPANS), max_size=30)


def built(steps: list[tuple[bool, tuple[int, int]]]) -> tuple[ByteRanges, set[int]]:
    """The same done to ranges and to a plain set."""
    ranges, positions = ByteRanges(), set[int]()
    for is_added, (start, end) in steps:
        if is_added:
            ranges.add(start, end)
            positions |= set(range(start, end))
        else:
            ranges.remove(start, end)
            positions -= set(range(start, end))
    return ranges, positions


@given(STEPS)
def test_they_hold_what_was_put_in_and_not_taken_out(steps: list[tuple[bool, tuple[int, int]]]) -> None:
    ranges, positions = built(steps)
    assert {at for start, end in ranges for at in range(start, end)} == positions
    assert ranges.total == len(positions)
    edges = [edge for span in ranges for edge in span]
    assert edges == sorted(set(edges))  # in order, never empty, never touching


@given(STEPS, SPANS)
def test_what_is_missing_is_the_rest(steps: list[tuple[bool, tuple[int, int]]], window: tuple[int, int]) -> None:
    ranges, positions = built(steps)
    missing = {at for start, end in ranges.missing(*window) for at in range(start, end)}
    assert missing == set(range(*window)) - positions


@given(STEPS)
def test_the_prefix_is_what_is_there_from_the_start(steps: list[tuple[bool, tuple[int, int]]]) -> None:
    ranges, positions = built(steps)
    assert ranges.prefix == next(at for at in range(LIMIT + 1) if at not in positions)


@given(STEPS)
def test_a_copy_is_equal_and_on_its_own(steps: list[tuple[bool, tuple[int, int]]]) -> None:
    ranges, positions = built(steps)
    copy = ranges.copy()
    assert copy == ranges
    copy.add(0, LIMIT + 5)
    assert ranges.total == len(positions)
    assert copy != ranges
