"""Responses that are kept for a while, so that conversations can go on from them."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from runner.api.openai.responses_items import Item, Json

MOST_RESPONSES = 1024
MOST_BYTES = 128 << 20
LONGEST_SECONDS = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A response that has ended, and all that the model had read for it."""

    response: Json
    read: tuple[Item, ...]
    output: tuple[Item, ...]
    kept_at: float
    size: int
    events: tuple[bytes, ...] = ()
    """What told of it while it was made in the background, each with the number that is its place."""

    @property
    def items(self) -> tuple[Item, ...]:
        """What a conversation that goes on from here begins with."""
        return (*self.read, *self.output)


class ResponseStore:
    """Owns the responses that are kept, in memory only.

    The oldest go when there are too many, when they are too large together, or when their time is
    over. Nobody finds what another owner has kept.
    """

    def __init__(
        self,
        *,
        most: int = MOST_RESPONSES,
        most_bytes: int = MOST_BYTES,
        seconds: float = LONGEST_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._seconds = seconds
        self._clock = clock
        self._kept: OrderedDict[tuple[str, str], StoredResponse] = OrderedDict()
        self._bytes = 0

    @property
    def size(self) -> int:
        """Bytes that all of them have, written out."""
        return self._bytes

    def keep(
        self,
        owner: str,
        response: Json,
        read: Sequence[Item],
        output: Sequence[Item],
        events: Sequence[bytes] = (),
    ) -> None:
        """Keep a response; one that is larger than all that may be kept is let go at once."""
        # What went before is counted with each that goes on from it: it stays as long as any of them.
        size = len(msgspec.json.encode([response, [item.record() for item in read]])) + sum(map(len, events))
        key = (owner, str(response["id"]))
        self.forget(*key)
        self._kept[key] = StoredResponse(response, tuple(read), tuple(output), self._clock(), size, tuple(events))
        self._bytes += size
        self._tidy()

    def find(self, owner: str, response_id: str) -> StoredResponse | None:
        self._tidy()
        return self._kept.get((owner, response_id))

    def find_item(self, owner: str, item_id: str) -> Item | None:
        """The item of that id in any response of the owner's, the newest first."""
        self._tidy()
        for (whose, _), stored in reversed(self._kept.items()):
            if whose == owner:
                for item in reversed(stored.items):
                    if item.id == item_id:
                        return item
        return None

    def forget(self, owner: str, response_id: str) -> bool:
        """Whether there was one."""
        stored = self._kept.pop((owner, response_id), None)
        self._bytes -= stored.size if stored else 0
        return stored is not None

    def _tidy(self) -> None:
        oldest_allowed = self._clock() - self._seconds
        while self._kept:
            key, oldest = next(iter(self._kept.items()))
            if len(self._kept) <= self._most and self._bytes <= self._most_bytes and oldest.kept_at > oldest_allowed:
                return
            del self._kept[key]
            self._bytes -= oldest.size
