"""What is kept for its owners for a while, in memory, within limits of count, size and time."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar

MOST_KEPT = 1024
MOST_BYTES = 128 << 20
LONGEST_SECONDS = 24 * 3600.0


class Keepable(Protocol):
    """Something with a size in bytes, and the moment from which its time counts."""

    @property
    def size(self) -> int: ...

    @property
    def kept_at(self) -> float: ...


def wake_later(seconds: float, look: Callable[[], None]) -> None:
    """Have the running loop look again after so many seconds."""
    asyncio.get_running_loop().call_later(seconds, look)


def never(seconds: float, look: Callable[[], None]) -> None:
    """Look only when somebody asks."""


KeptT = TypeVar("KeptT", bound=Keepable)


class KeptStore(Generic[KeptT]):
    """Owns what is kept, the oldest first. Nobody finds what another owner has kept.

    The oldest go when there are too many, when they are too large together, or when their time is over;
    with `wake_later` then, and without it when somebody asks next.
    """

    def __init__(
        self,
        *,
        most: int = MOST_KEPT,
        most_bytes: int = MOST_BYTES,
        seconds: float = LONGEST_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        wake: Callable[[float, Callable[[], None]], None] = never,
    ) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._seconds = seconds
        self._clock = clock
        self._wake = wake
        self._will_look = False
        self._kept: OrderedDict[tuple[str, str], KeptT] = OrderedDict()
        self._bytes = 0

    @property
    def size(self) -> int:
        """Bytes that all of them have, written out."""
        return self._bytes

    def forget(self, owner: str, name: str) -> bool:
        """Whether there was one."""
        gone = self._kept.pop((owner, name), None)
        self._bytes -= gone.size if gone else 0
        return gone is not None

    def _of(self, owner: str) -> Iterator[KeptT]:
        """What an owner has kept, the newest first."""
        self._tidy()
        return (kept for (whose, _), kept in reversed(self._kept.items()) if whose == owner)

    def _tidy(self) -> None:
        now = self._clock()
        while self._kept:
            key, oldest = next(iter(self._kept.items()))
            left = oldest.kept_at + self._seconds - now
            if len(self._kept) <= self._most and self._bytes <= self._most_bytes and left > 0:
                self._look_in(left)
                return
            self.forget(*key)

    def _look_in(self, seconds: float) -> None:
        if not self._will_look:
            self._will_look = True
            self._wake(seconds, self._look)

    def _look(self) -> None:
        self._will_look = False
        self._tidy()
