"""Responses that are kept for a while, so that conversations can go on from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from runner.api.openai.kept import KeptStore
from runner.api.openai.responses_items import Item, Json


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


class ResponseStore(KeptStore[StoredResponse]):
    """Owns the responses that are kept, in memory only. The oldest go first."""

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

    def items(self, owner: str) -> Iterator[Item]:
        """All that the owner's responses have read and said, the newest first; some items come more than once."""
        return (item for stored in self._of(owner) for item in reversed(stored.items))
