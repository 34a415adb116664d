"""Vectors as they were asked for: cut, made one long, or found to hold what is no number."""

from __future__ import annotations

import array
import math
import sys


def shaped(vector: array.array[float], *, dimensions: int | None, normalize: bool) -> bytes | None:
    """The first `dimensions` numbers, one long if asked, as little-endian 32-bit floats; None when one is no number."""
    if not math.isfinite(math.hypot(*vector)):
        return None
    if dimensions is not None:
        vector = vector[:dimensions]
    length = math.hypot(*vector) if normalize else 1.0
    if length not in (0.0, 1.0):
        vector = array.array("f", [number / length for number in vector])
    if sys.byteorder != "little":
        vector.byteswap()
    return vector.tobytes()
