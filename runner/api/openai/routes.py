"""The OpenAI dialect's paths."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request, Response

from registry.store import ModelStore
from runner.api.bodies import read_body
from runner.api.context import request_id
from runner.api.documents import json_body
from runner.api.errors import report_of
from runner.api.openai.schema import ChatCompletionBody
from runner.api.openai.translate import Chunks, chat_call, completion, error_event, model_entry
from runner.api.streaming import (
    SERVER_SENT_EVENTS,
    JsonResponse,
    StreamResponse,
    ignored_header,
    while_connected,
)
from runner.api.validation import ignored_fields
from runner.generate import Generator, find_model


def create_router(generator: Generator, store: ModelStore, max_body_bytes: int) -> APIRouter:
    router = APIRouter()

    @router.post("/v1/chat/completions", openapi_extra=json_body(ChatCompletionBody))
    async def chat_completions(request: Request) -> Response:
        body = await read_body(request, ChatCompletionBody, max_body_bytes)
        return await _answer(generator, request, body)

    @router.get("/v1/models")
    async def models() -> Response:
        stored = await asyncio.to_thread(store.models)
        return JsonResponse({"object": "list", "data": [model_entry(model) for model in stored]})

    @router.get("/v1/models/{model:path}")
    async def model(model: str) -> Response:
        return JsonResponse(model_entry(await asyncio.to_thread(find_model, store, model)))

    return router


async def _answer(generator: Generator, request: Request, body: ChatCompletionBody) -> Response:
    call = chat_call(body, request_id(request))
    ignored = ignored_fields(body)
    if not body.stream:
        answer = await while_connected(request.receive, generator.complete(call))
        return JsonResponse(completion(call, answer), headers=ignored_header([*ignored, *answer.generation.ignored]))
    generation = await while_connected(request.receive, generator.open(call))
    include_usage = body.stream_options is not None and bool(body.stream_options.include_usage)
    return StreamResponse(
        generation,
        Chunks(call, generation, include_usage=include_usage).encode,
        lambda error: error_event(report_of(error, call.request_id)),
        SERVER_SENT_EVENTS,
        ignored_header([*ignored, *generation.ignored]),
    )
