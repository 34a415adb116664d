"""Which start of this machine it is, so that what a loss of power may have taken is not trusted."""

from __future__ import annotations

from functools import cache
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@cache
def boot() -> str | None:
    """The same text as long as the machine runs, another after each start; None where the system tells none."""
    try:
        return _BOOT_ID.read_text("ascii").strip() or None
    except (OSError, ValueError):
        return None
