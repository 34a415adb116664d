"""How long to go on trying: counted from the last progress, not from the start."""

from __future__ import annotations

import email.utils
import random
import time
from collections.abc import Callable, Mapping

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
_SPREAD = random.SystemRandom()


class Patience:
    """The time without any progress, after which a download is given up."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._clock = clock
        self._since = clock()

    def renew(self) -> None:
        """Something has come."""
        self._since = self._clock()

    @property
    def waited(self) -> float:
        """Seconds since something came."""
        return self._clock() - self._since

    @property
    def is_over(self) -> bool:
        return self.waited > self.seconds


def pause_after(failures: int, asked_for: float | None = None) -> float:
    """Seconds to wait before the next try: longer each time, never alike, and no shorter than the server asks for."""
    pause: float = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2 ** min(failures - 1, 10))
    return max(asked_for or 0.0, pause * _SPREAD.uniform(0.5, 1.0))


def asked_pause(headers: Mapping[str, str]) -> float | None:
    """The seconds that a `Retry-After` header asks for, as a number or as a date."""
    text = headers.get("Retry-After", "").strip()
    if text.isdecimal() and len(text) < 10:
        return float(text)
    try:
        when = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    return max(0.0, when.timestamp() - time.time())
