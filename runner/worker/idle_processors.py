"""How many processors of this machine have nothing to do."""

from __future__ import annotations

import time

import psutil


class IdleProcessors:
    """Call it again and again: each call tells how many were at rest, on average, since the one before."""

    def __init__(self) -> None:
        self._idle = psutil.cpu_times().idle
        self._at = time.monotonic()

    def __call__(self) -> float | None:
        idle, at = psutil.cpu_times().idle, time.monotonic()
        since = at - self._at
        at_rest = (idle - self._idle) / since if since > 0 else None
        self._idle, self._at = idle, at
        return at_rest
