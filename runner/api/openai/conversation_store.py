"""Conversations that are kept here, so that responses can be added to them by name."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from runner.api.openai.responses_items import Item, Json

MOST_CONVERSATIONS = 1024
MOST_BYTES = 128 << 20
LONGEST_SECONDS = 24 * 3600.0


@dataclass(slots=True)
class StoredConversation:
    """A conversation's items in their order; changed by its store alone."""

    id: str
    metadata: dict[str, str]
    created_at: int
    items: tuple[Item, ...] = ()
    used_at: float = 0.0
    sizes: dict[str, int] = field(default_factory=dict)
    """Bytes of each item, written out, by its id."""

    def record(self) -> Json:
        return {
            "id": self.id,
            "object": "conversation",
            "created_at": self.created_at,
            "metadata": dict(self.metadata),
        }

    @property
    def size(self) -> int:
        return sum(self.sizes.values())

    def find(self, item_id: str) -> Item | None:
        return next((item for item in self.items if item.id == item_id), None)


class ConversationStore:
    """Owns the conversations that are kept, in memory only.

    Those that were not used for longest go when there are too many, when they are too large
    together, or when their time is over. Nobody finds what another owner has kept.
    """

    def __init__(
        self,
        *,
        most: int = MOST_CONVERSATIONS,
        most_bytes: int = MOST_BYTES,
        seconds: float = LONGEST_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._seconds = seconds
        self._clock = clock
        self._kept: OrderedDict[tuple[str, str], StoredConversation] = OrderedDict()
        self._bytes = 0

    @property
    def size(self) -> int:
        """Bytes that all of them have, written out."""
        return self._bytes

    def keep(self, owner: str, conversation: StoredConversation, items: Sequence[Item] = ()) -> None:
        """Keep a new conversation with its first items."""
        self._kept[owner, conversation.id] = conversation
        self.add(owner, conversation.id, items)

    def find(self, owner: str, conversation_id: str) -> StoredConversation | None:
        """The conversation, which counts as used now."""
        self._tidy()
        key = (owner, conversation_id)
        found = self._kept.get(key)
        if found is not None:
            found.used_at = self._clock()
            self._kept.move_to_end(key)
        return found

    def find_item(self, owner: str, item_id: str) -> Item | None:
        """The item of that id in any conversation of the owner's."""
        self._tidy()
        for (whose, _), conversation in self._kept.items():
            if whose == owner and (item := conversation.find(item_id)) is not None:
                return item
        return None

    def add(self, owner: str, conversation_id: str, items: Sequence[Item]) -> None:
        """Put items at the end; of a conversation that is gone nothing is kept. One that is here already stays once."""
        found = self._kept.get((owner, conversation_id))
        if found is None:
            return
        fresh = {item.id: item for item in items if item.id not in found.sizes}
        sizes = {item_id: len(msgspec.json.encode(item.record())) for item_id, item in fresh.items()}
        found.items += tuple(fresh.values())
        found.sizes |= sizes
        found.used_at = self._clock()
        self._kept.move_to_end((owner, conversation_id))
        self._bytes += sum(sizes.values())
        self._tidy()

    def remove(self, owner: str, conversation_id: str, item_id: str) -> None:
        """Take one item out."""
        found = self._kept[owner, conversation_id]
        found.items = tuple(item for item in found.items if item.id != item_id)
        self._bytes -= found.sizes.pop(item_id, 0)

    def describe(self, owner: str, conversation_id: str, metadata: dict[str, str]) -> None:
        self._kept[owner, conversation_id].metadata = metadata

    def forget(self, owner: str, conversation_id: str) -> None:
        gone = self._kept.pop((owner, conversation_id), None)
        self._bytes -= gone.size if gone else 0

    def _tidy(self) -> None:
        oldest_allowed = self._clock() - self._seconds
        while self._kept:
            key, oldest = next(iter(self._kept.items()))
            if len(self._kept) <= self._most and self._bytes <= self._most_bytes and oldest.used_at > oldest_allowed:
                return
            self.forget(*key)
