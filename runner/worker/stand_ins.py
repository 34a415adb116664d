"""Numbers that stand among tokens for the places of images and sounds, and where sequences of them may be cut."""

from __future__ import annotations

import array
import hashlib
from collections.abc import Sequence

_SIZES = (1 << 62) - 1
_LARGEST = -2
"""Of all stand-ins; -1 is nothing's."""
_LARGEST_BOUND = _LARGEST - (1 << 62)
"""Of those that cannot be had without the one before them."""


def stand_ins(key: bytes, count: int, *, is_grid: bool = False) -> list[int]:
    """Numbers below -1 for the places of a piece; the same for the same key and count.

    Those of a grid tell that it cannot be cut.
    """
    made = array.array("q", hashlib.shake_256(key + count.to_bytes(8, "little")).digest(8 * count))
    numbers = [_LARGEST - (number & _SIZES) for number in made]
    return numbers[:1] + [number - (1 << 62) for number in numbers[1:]] if is_grid else numbers


def whole_length(tokens: Sequence[int], length: int) -> int:
    """The largest length, at most `length`, at which these tokens may be cut."""
    while 0 < length < len(tokens) and tokens[length] <= _LARGEST_BOUND:
        length -= 1
    return length


def whole_end(tokens: Sequence[int], start: int, most: int) -> int:
    """Where a range from `start` on ends, of about `most` tokens and more only where it cannot be cut before."""
    end = min(start + most, len(tokens))
    if (whole := whole_length(tokens, end)) > start:
        return whole
    while end < len(tokens) and tokens[end] <= _LARGEST_BOUND:
        end += 1
    return end
