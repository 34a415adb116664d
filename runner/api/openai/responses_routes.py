"""The OpenAI dialect's paths of responses."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from fastapi import APIRouter, Request, Response

from runner.api.bodies import read_body
from runner.api.context import owner, request_id
from runner.api.documents import json_body, query
from runner.api.errors import report_of
from runner.api.openai.paging import MOST, Page, page_of
from runner.api.openai.responses_items import Item
from runner.api.openai.responses_object import ResponseFrame
from runner.api.openai.responses_schema import InputTokensBody, ItemBody, ResponseBody
from runner.api.openai.responses_store import ResponseStore, StoredResponse
from runner.api.openai.responses_stream import ResponseStream, whole_output
from runner.api.openai.responses_translate import (
    answer_call,
    custom_names,
    ignored_includes,
    prompt_call,
    read_input,
)
from runner.api.openai.translate import Json
from runner.api.standing import with_standing
from runner.api.streaming import SERVER_SENT_EVENTS, JsonResponse, StreamResponse, ignored_header, while_connected
from runner.api.validation import ignored_fields
from runner.errors import InvalidRequest, NotFound, Unsupported
from runner.generate import Generator


def create_router(generator: Generator, store: ResponseStore, max_body_bytes: int) -> APIRouter:
    router = APIRouter()

    @router.post("/v1/responses", openapi_extra=json_body(ResponseBody))
    async def create(request: Request) -> Response:
        body = await read_body(request, ResponseBody, max_body_bytes)
        return await _answer(generator, store, request, body)

    @router.post("/v1/responses/input_tokens", openapi_extra=json_body(InputTokensBody))
    async def count(request: Request) -> Response:
        body = await read_body(request, InputTokensBody, max_body_bytes)
        items = _items(store, request, body.input, body.previous_response_id)
        call = prompt_call(body, request_id(request), items)
        rendered, ignored = await while_connected(request.receive, generator.render(call))
        answer = {"object": "response.input_tokens", "input_tokens": len(rendered.tokens)}
        return JsonResponse(answer, headers=ignored_header([*ignored_fields(body), *ignored]))

    @router.get("/v1/responses/{response_id}", openapi_extra=query(stream={"const": False}))
    async def retrieve(request: Request, response_id: str) -> Response:
        if request.query_params.get("stream", "false").lower() not in ("false", "0", ""):
            raise Unsupported("A response is streamed only while it is made.", field="stream")
        return JsonResponse(_stored(store, request, response_id).response)

    @router.delete("/v1/responses/{response_id}")
    async def delete(request: Request, response_id: str) -> Response:
        _stored(store, request, response_id)
        store.forget(owner(request), response_id)
        return JsonResponse({"id": response_id, "object": "response", "deleted": True})

    @router.post("/v1/responses/{response_id}/cancel")
    async def cancel(request: Request, response_id: str) -> Response:
        _stored(store, request, response_id)
        raise InvalidRequest(
            "This response has ended. One that is being made is cancelled by closing its connection.", "response_id"
        )

    @router.get(
        "/v1/responses/{response_id}/input_items",
        openapi_extra=query(
            after={"type": "string"},
            limit={"type": "integer", "minimum": 1, "maximum": MOST, "default": 20},
            order={"enum": ["asc", "desc"], "default": "desc"},
        ),
    )
    async def input_items(request: Request, response_id: str) -> Response:
        asked = request.query_params
        page = Page.read(asked.get("after"), asked.get("limit", "20"), asked.get("order", "desc"))
        return JsonResponse(page_of([item.record() for item in _stored(store, request, response_id).read], page))

    return router


async def _answer(generator: Generator, store: ResponseStore, request: Request, body: ResponseBody) -> Response:
    items = _items(store, request, body.input, body.previous_response_id)
    call = with_standing(answer_call(body, request_id(request), items), request)
    ignored = [*ignored_fields(body), *ignored_includes(body)]
    keep = partial(_keep, store, owner(request), items) if body.store is not False else _let_go
    if not body.stream:
        answer = await while_connected(request.receive, generator.complete(call))
        output = whole_output(answer, custom_names(body))
        response = ResponseFrame(body, call, answer.generation).finished(answer.finished, output)
        keep(response, output)
        return JsonResponse(response, headers=ignored_header([*ignored, *answer.generation.ignored]))
    generation = await while_connected(request.receive, generator.open(call))
    stream = ResponseStream(ResponseFrame(body, call, generation), call.request_id, keep)
    return StreamResponse(
        generation,
        stream.encode,
        lambda error: stream.encode_error(report_of(error, call.request_id)),
        SERVER_SENT_EVENTS,
        ignored_header([*ignored, *generation.ignored]),
    )


def _items(
    store: ResponseStore, request: Request, sent: Sequence[ItemBody] | None, previous: str | None
) -> tuple[Item, ...]:
    """All that the model is to read but the instructions, which are not taken over from an earlier response."""
    earlier: tuple[Item, ...] = ()
    if previous is not None:
        found = store.find(owner(request), previous)
        if found is None:
            raise NotFound(
                f"Previous response with id {previous[:100]!a} not found; responses are kept for a day, in memory.",
                field="previous_response_id",
            )
        earlier = found.items
    return read_input(sent, earlier, partial(store.find_item, owner(request)))


def _keep(store: ResponseStore, whose: str, read: Sequence[Item], response: Json, output: Sequence[Item]) -> None:
    store.keep(whose, response, read, output)


def _let_go(response: Json, output: Sequence[Item]) -> None:
    """For responses that are not to be stored."""


def _stored(store: ResponseStore, request: Request, response_id: str) -> StoredResponse:
    found = store.find(owner(request), response_id)
    if found is None:
        raise NotFound(f"Response with id {response_id[:100]!a} not found.", field="response_id")
    return found
