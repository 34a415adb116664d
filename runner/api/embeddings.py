"""What the dialects share of embeddings: limits, and vectors as numbers."""

from __future__ import annotations

import array
import sys
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from runner.tasks import ShortenedInput

MOST_INPUTS = 2048
LARGEST_TOKEN = 2**31 - 1

Token = Annotated[int, Field(ge=0, le=LARGEST_TOKEN)]


def numbers(vector: bytes) -> list[float]:
    """The numbers of a vector as it comes from a worker."""
    floats = array.array("f", vector)
    if sys.byteorder != "little":
        floats.byteswap()
    return floats.tolist()


def truncations(shortened: Sequence[ShortenedInput]) -> dict[str, Any]:
    """What a reply says of inputs that were cut; nothing when none was."""
    if not shortened:
        return {}
    return {
        "truncated": [
            {"index": one.index, "from": one.original, "to": one.kept, "strategy": "drop_end"} for one in shortened
        ]
    }
