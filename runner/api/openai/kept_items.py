"""The items of all that an owner has kept here, found by their ids."""

from __future__ import annotations

import functools
from collections.abc import Callable

from runner.api.openai.conversation_store import ConversationStore
from runner.api.openai.responses_items import Item
from runner.api.openai.responses_store import ResponseStore


def item_finder(owner: str, responses: ResponseStore, conversations: ConversationStore) -> Callable[[str], Item | None]:
    """What finds the items of one owner; it looks through all of them once, when the first is asked for."""

    @functools.cache
    def by_id() -> dict[str, Item]:
        found: dict[str, Item] = {}
        for store in (responses, conversations):
            for item in store.items(owner):
                found.setdefault(item.id, item)
        return found

    return lambda item_id: by_id().get(item_id)
