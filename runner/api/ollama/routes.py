"""The Ollama dialect's paths that generate."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter, Request, Response

from runner.api.bodies import read_body
from runner.api.context import arrived_ns, request_id
from runner.api.documents import json_body
from runner.api.errors import report_of
from runner.api.ollama.records import Records, error_record
from runner.api.ollama.schema import ChatBody, GenerateBody
from runner.api.ollama.translate import chat_call, generate_call
from runner.api.standing import with_standing
from runner.api.streaming import NDJSON, JsonResponse, StreamResponse, ignored_header, while_connected
from runner.api.validation import ignored_fields
from runner.calls import Call
from runner.choices import Choices
from runner.generate import Generation, Generator


def create_router(generator: Generator, max_body_bytes: int) -> APIRouter:
    router = APIRouter()

    @router.post("/api/chat", openapi_extra=json_body(ChatBody))
    async def chat(request: Request) -> Response:
        body = await read_body(request, ChatBody, max_body_bytes)
        call = with_standing(chat_call(body, request_id(request)), request)
        return await _answer(generator, request, call, body)

    @router.post("/api/generate", openapi_extra=json_body(GenerateBody))
    async def generate(request: Request) -> Response:
        body = await read_body(request, GenerateBody, max_body_bytes)
        call = with_standing(generate_call(body, request_id(request)), request)
        return await _answer(generator, request, call, body)

    return router


async def _answer(generator: Generator, request: Request, call: Call, body: ChatBody | GenerateBody) -> Response:
    ignored = ignored_fields(body)
    if call.is_empty:
        return await while_connected(request.receive, _load_or_unload(generator, request, call))
    if body.debug_render_only:
        rendered, vain = await while_connected(request.receive, generator.render(call))
        shown = _records(request, call, None).rendered(rendered)
        return JsonResponse(shown, headers=ignored_header([*ignored, *vain]))
    if body.stream is False:
        answer = await while_connected(request.receive, generator.complete(call))
        records = _records(request, call, answer.generation)
        return JsonResponse(records.whole(answer), headers=ignored_header([*ignored, *answer.generation.ignored]))
    generation = await while_connected(request.receive, generator.open(call))
    return StreamResponse(
        generation,
        _records(request, call, generation).encode,
        lambda error: error_record(report_of(error, call.request_id)),
        NDJSON,
        ignored_header([*ignored, *generation.ignored]),
    )


async def _load_or_unload(generator: Generator, request: Request, call: Call) -> Response:
    records = _records(request, call, None)
    if call.keep_alive == 0:
        await generator.unload(call)
        return JsonResponse(records.without_text("unload"))
    ignored: Sequence[str] = await generator.load(call)
    return JsonResponse(records.without_text("load"), headers=ignored_header(ignored))


def _records(request: Request, call: Call, source: Generation | Choices | None) -> Records:
    return Records(call, source, started_ns=arrived_ns(request))
