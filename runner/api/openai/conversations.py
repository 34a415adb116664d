"""The OpenAI dialect's paths of conversations."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import Field

from runner.api.bodies import read_body
from runner.api.context import owner
from runner.api.documents import json_body, query
from runner.api.openai.conversation_store import ConversationStore, StoredConversation
from runner.api.openai.item_schema import ItemBody
from runner.api.openai.kept_items import item_finder
from runner.api.openai.paging import Page, page_of
from runner.api.openai.queries import PAGE, TEXT, ignored_queries, page_response
from runner.api.openai.responses_items import Item
from runner.api.openai.responses_schema import Metadata
from runner.api.openai.responses_store import ResponseStore
from runner.api.openai.responses_translate import new_id, read_items
from runner.api.streaming import JsonResponse, ignored_header
from runner.api.validation import Body, ignored_fields
from runner.errors import NotFound

MOST_AT_ONCE = 20
Items = Annotated[list[ItemBody], Field(max_length=MOST_AT_ONCE)]


class ConversationBody(Body):
    items: Items | None = None
    metadata: Metadata | None = None


class MetadataBody(Body):
    metadata: Metadata | None


class ItemsBody(Body):
    items: Items


_Read = Callable[[Request, list[ItemBody], Collection[str]], tuple[Item, ...]]


def create_router(store: ConversationStore, responses: ResponseStore, max_body_bytes: int) -> APIRouter:
    router = APIRouter()

    def read(request: Request, bodies: list[ItemBody], there: Collection[str] = ()) -> tuple[Item, ...]:
        return read_items(bodies, "items", item_finder(owner(request), responses, store), there)

    @router.post("/v1/conversations", openapi_extra=json_body(ConversationBody))
    async def create(request: Request) -> Response:
        body = await read_body(request, ConversationBody, max_body_bytes)
        items = read(request, body.items or [])
        made = StoredConversation(new_id("conv"), body.metadata or {}, int(time.time()))
        store.keep(owner(request), made, items)
        return JsonResponse(made.record(), headers=ignored_header(ignored_fields(body)))

    @router.get("/v1/conversations/{conversation_id}")
    async def retrieve(request: Request, conversation_id: str) -> Response:
        return JsonResponse(stored_conversation(store, request, conversation_id).record())

    @router.post("/v1/conversations/{conversation_id}", openapi_extra=json_body(MetadataBody))
    async def update(request: Request, conversation_id: str) -> Response:
        body = await read_body(request, MetadataBody, max_body_bytes)
        found = stored_conversation(store, request, conversation_id)
        store.describe(owner(request), conversation_id, body.metadata or {})
        return JsonResponse(found.record())

    @router.delete("/v1/conversations/{conversation_id}")
    async def delete(request: Request, conversation_id: str) -> Response:
        stored_conversation(store, request, conversation_id)
        store.forget(owner(request), conversation_id)
        return JsonResponse({"id": conversation_id, "object": "conversation.deleted", "deleted": True})

    _add_item_paths(router, store, read, max_body_bytes)
    return router


def _add_item_paths(router: APIRouter, store: ConversationStore, read: _Read, max_body_bytes: int) -> None:
    @router.post(
        "/v1/conversations/{conversation_id}/items",
        openapi_extra={**json_body(ItemsBody), **query(include=TEXT)},
    )
    async def add(request: Request, conversation_id: str) -> Response:
        body = await read_body(request, ItemsBody, max_body_bytes)
        found = stored_conversation(store, request, conversation_id)
        items = read(request, body.items, found.sizes)
        store.add(owner(request), conversation_id, items)
        records = [item.record() for item in items]
        page = page_of(records, Page(None, MOST_AT_ONCE, is_newest_first=False))
        return JsonResponse(page, headers=ignored_header([*ignored_fields(body), *ignored_queries(request)]))

    @router.get("/v1/conversations/{conversation_id}/items", openapi_extra=query(**PAGE))
    async def list_items(request: Request, conversation_id: str) -> Response:
        return page_response(request, stored_conversation(store, request, conversation_id).items)

    @router.get("/v1/conversations/{conversation_id}/items/{item_id}", openapi_extra=query(include=TEXT))
    async def retrieve_item(request: Request, conversation_id: str, item_id: str) -> Response:
        item = _stored_item(store, request, conversation_id, item_id)
        return JsonResponse(item.record(), headers=ignored_header(ignored_queries(request)))

    @router.delete("/v1/conversations/{conversation_id}/items/{item_id}")
    async def delete_item(request: Request, conversation_id: str, item_id: str) -> Response:
        _stored_item(store, request, conversation_id, item_id)
        store.remove(owner(request), conversation_id, item_id)
        return JsonResponse(stored_conversation(store, request, conversation_id).record())


def stored_conversation(
    store: ConversationStore, request: Request, conversation_id: str, field: str = "conversation_id"
) -> StoredConversation:
    """The caller's conversation of that id. Raises NotFound."""
    found = store.find(owner(request), conversation_id)
    if found is None:
        raise NotFound(
            f"Conversation with id {conversation_id[:100]!a} not found; conversations are kept in memory, "
            "for a day after they were used last.",
            field=field,
        )
    return found


def _stored_item(store: ConversationStore, request: Request, conversation_id: str, item_id: str) -> Item:
    found = stored_conversation(store, request, conversation_id).find(item_id)
    if found is None:
        raise NotFound(f"Item with id {item_id[:100]!a} not found in the conversation.", field="item_id")
    return found
