"""Conversations that are kept here, so that responses can be added to them by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import msgspec

from runner.api.openai.kept import KeptStore
from runner.api.openai.responses_items import Item, Json


@dataclass(slots=True)
class StoredConversation:
    """A conversation's items in their order; changed by its store alone."""

    id: str
    metadata: dict[str, str]
    created_at: int
    items: tuple[Item, ...] = ()
    kept_at: float = 0.0
    """When it was used last."""
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


class ConversationStore(KeptStore[StoredConversation]):
    """Owns the conversations that are kept, in memory only. Those that were not used for longest go first."""

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
            found.kept_at = self._clock()
            self._kept.move_to_end(key)
        return found

    def items(self, owner: str) -> Iterator[Item]:
        """All items of the owner's conversations."""
        return (item for conversation in self._of(owner) for item in conversation.items)

    def add(self, owner: str, conversation_id: str, items: Sequence[Item]) -> None:
        """Put items at the end; of a conversation that is gone nothing is kept. One that is here already stays once."""
        found = self._kept.get((owner, conversation_id))
        if found is None:
            return
        fresh = {item.id: item for item in items if item.id not in found.sizes}
        sizes = {item_id: len(msgspec.json.encode(item.record())) for item_id, item in fresh.items()}
        found.items += tuple(fresh.values())
        found.sizes |= sizes
        found.kept_at = self._clock()
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
