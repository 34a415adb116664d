"""The OpenAI dialect's paths."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from runner.api.bodies import read_body
from runner.api.context import request_id
from runner.api.documents import json_body
from runner.api.openai.answering import complete, event_stream
from runner.api.openai.chat_answers import Chunks, completion
from runner.api.openai.chat_calls import call_shape, chat_calls
from runner.api.openai.completion_schema import CompletionBody
from runner.api.openai.completions import CompletionChunks, completion_calls
from runner.api.openai.completions import completion as text_completion
from runner.api.openai.schema import ChatCompletionBody
from runner.api.standing import with_standing
from runner.api.streaming import JsonResponse, ignored_header, while_connected
from runner.api.validation import ignored_fields
from runner.generate import Generator


def create_router(generator: Generator, max_body_bytes: int) -> APIRouter:
    router = APIRouter()

    @router.post("/v1/chat/completions", openapi_extra=json_body(ChatCompletionBody))
    async def chat_completions(request: Request) -> Response:
        body = await read_body(request, ChatCompletionBody, max_body_bytes)
        return await _answer(generator, request, body)

    @router.post("/v1/completions", openapi_extra=json_body(CompletionBody))
    async def completions(request: Request) -> Response:
        body = await read_body(request, CompletionBody, max_body_bytes)
        return await _complete_text(generator, request, body)

    return router


async def _answer(generator: Generator, request: Request, body: ChatCompletionBody) -> Response:
    calls = [with_standing(call, request) for call in chat_calls(body, request_id(request))]
    ignored, shape = ignored_fields(body), call_shape(body)
    if not body.stream:
        answers = await while_connected(request.receive, complete(generator, calls))
        headers = ignored_header([*ignored, *answers[0].generation.ignored])
        return JsonResponse(completion(calls[0], answers, shape), headers=headers)
    if len(calls) == 1:
        generation = await while_connected(request.receive, generator.open(calls[0]))
        chunks = Chunks(calls, generation, include_usage=body.wants_usage, shape=shape)
        return event_stream(generation, chunks.encode, calls[0], ignored)
    opened = await while_connected(request.receive, generator.open_choices(calls))
    chunks = Chunks(calls, opened, include_usage=body.wants_usage, shape=shape)
    return event_stream(opened, chunks.encode_choice, calls[0], ignored)


async def _complete_text(generator: Generator, request: Request, body: CompletionBody) -> Response:
    calls = [with_standing(call, request) for call in completion_calls(body, request_id(request))]
    ignored = ignored_fields(body)
    if not body.stream:
        answers = await while_connected(request.receive, complete(generator, calls))
        headers = ignored_header([*ignored, *answers[0].generation.ignored])
        return JsonResponse(text_completion(body, calls, answers), headers=headers)
    if len(calls) == 1:
        generation = await while_connected(request.receive, generator.open(calls[0]))
        return event_stream(generation, CompletionChunks(body, calls, generation).encode, calls[0], ignored)
    opened = await while_connected(request.receive, generator.open_choices(calls))
    return event_stream(opened, CompletionChunks(body, calls, opened).encode_choice, calls[0], ignored)
