"""One step of something long: a pull or a creation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """What is being done, and of a file how many of its bytes are there."""

    status: str
    digest: str | None = None
    total: int | None = None
    completed: int | None = None


Notice = Callable[[str], None]
"""Tells whoever waits one line, such as that another source is tried. Does not block."""
