"""What stands among tokens for images and sounds says where sequences may be cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runner.worker.stand_ins import stand_ins, whole_end, whole_length

PIECES = st.lists(
    st.one_of(
        st.integers(1, 9).map(lambda count: list(range(count))),
        st.builds(stand_ins, st.binary(min_size=1, max_size=2), st.integers(1, 12), is_grid=st.booleans()),
    ),
    max_size=8,
)


def places(pieces: list[list[int]]) -> set[int]:
    """Where a sequence of these pieces may be cut: anywhere but within a grid."""
    found, start = {0}, 0
    for piece in pieces:
        is_grid = len(piece) > 1 and piece[1] < -(1 << 62)
        found |= {start + len(piece)} if is_grid else set(range(start, start + len(piece) + 1))
        start += len(piece)
    return found


def test_equal_contents_have_equal_stand_ins_and_all_are_below_minus_one() -> None:
    assert stand_ins(b"a", 3) == stand_ins(b"a", 3) != stand_ins(b"b", 3)
    for is_grid in (False, True):
        assert all(-(1 << 63) <= number < -1 for number in stand_ins(b"a", 4000, is_grid=is_grid))
    assert stand_ins(b"a", 4, is_grid=True)[0] == stand_ins(b"a", 4)[0]


@given(PIECES, st.integers(0, 90))
def test_lengths_are_made_whole_downwards(pieces: list[list[int]], length: int) -> None:
    tokens = [token for piece in pieces for token in piece]
    length = min(length, len(tokens))
    assert whole_length(tokens, length) == max(place for place in places(pieces) if place <= length)


@given(PIECES, st.integers(1, 30))
def test_ranges_cover_everything_and_end_where_tokens_may_be_cut(pieces: list[list[int]], most: int) -> None:
    tokens = [token for piece in pieces for token in piece]
    allowed, start = places(pieces), 0
    while start < len(tokens):
        end = whole_end(tokens, start, most)
        assert start < end <= len(tokens)
        assert end in allowed
        assert end - start <= most or not [place for place in allowed if start < place < end]
        start = end
