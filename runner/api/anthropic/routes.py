"""The Anthropic dialect's paths."""

from __future__ import annotations

import dataclasses

from fastapi import APIRouter, Request, Response

from runner.api.anthropic.schema import CountBody, MessagesBody
from runner.api.anthropic.stream import MessageStream, error_event, whole_message
from runner.api.anthropic.translate import messages_options, prompt_call
from runner.api.bodies import read_body
from runner.api.context import request_id
from runner.api.documents import json_body
from runner.api.errors import report_of
from runner.api.standing import with_standing
from runner.api.streaming import SERVER_SENT_EVENTS, JsonResponse, StreamResponse, ignored_header, while_connected
from runner.api.validation import ignored_fields
from runner.calls import Call
from runner.errors import ContextLengthExceeded, ReportedError
from runner.generate import Generator


def create_router(generator: Generator, max_body_bytes: int) -> APIRouter:
    router = APIRouter()

    @router.post("/v1/messages", openapi_extra=json_body(MessagesBody))
    async def messages(request: Request) -> Response:
        body = await read_body(request, MessagesBody, max_body_bytes)
        return await _answer(generator, request, body)

    @router.post("/v1/messages/count_tokens", openapi_extra=json_body(CountBody))
    async def count_tokens(request: Request) -> Response:
        body = await read_body(request, CountBody, max_body_bytes)
        call = prompt_call(body, request_id(request))
        count, ignored = await while_connected(request.receive, _count(generator, call))
        return JsonResponse({"input_tokens": count}, headers=ignored_header([*ignored_fields(body), *ignored]))

    return router


async def _count(generator: Generator, call: Call) -> tuple[int, tuple[str, ...]]:
    """The tokens of a prompt, also of one that no window holds, and the fields that had no effect."""
    try:
        rendered, ignored = await generator.render(call)
    except (ContextLengthExceeded, ReportedError) as error:
        count = error.facts.get("prompt_tokens")
        if error.code != ContextLengthExceeded.code or not isinstance(count, int) or "at_least" in error.facts:
            raise
        return count, ()
    return len(rendered.tokens), ignored


async def _answer(generator: Generator, request: Request, body: MessagesBody) -> Response:
    call = dataclasses.replace(
        with_standing(prompt_call(body, request_id(request)), request),
        options=messages_options(body),
        truncate=bool(body.truncate),
        receipt=bool(body.receipt),
    )
    ignored = ignored_fields(body)
    if not body.stream:
        answer = await while_connected(request.receive, generator.complete(call))
        return JsonResponse(
            whole_message(call, answer),
            headers=ignored_header([*ignored, *answer.generation.ignored]),
        )
    generation = await while_connected(request.receive, generator.open(call))
    return StreamResponse(
        generation,
        MessageStream(call, generation).encode,
        lambda error: error_event(report_of(error, call.request_id)),
        SERVER_SENT_EVENTS,
        ignored_header([*ignored, *generation.ignored]),
    )
