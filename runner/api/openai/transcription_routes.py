"""The OpenAI dialect's paths for sounds."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from runner.api.bodies import read_form
from runner.api.context import request_id
from runner.api.documents import form_body
from runner.api.openai.answering import event_stream
from runner.api.openai.transcription_schema import FILES, TranscriptionBody, TranslationBody
from runner.api.openai.transcriptions import (
    TranscriptEvents,
    cut_off_header,
    transcript,
    transcription_call,
    translation,
    translation_call,
)
from runner.api.openai.translate import Json
from runner.api.standing import with_standing
from runner.api.streaming import JsonResponse, ignored_header, while_connected
from runner.generate import Answer, Generator

TEXT = "text/plain; charset=utf-8"


def create_router(generator: Generator, max_body_bytes: int) -> APIRouter:
    router = APIRouter()

    @router.post("/v1/audio/transcriptions", openapi_extra=form_body(TranscriptionBody))
    async def transcriptions(request: Request) -> Response:
        body = await read_form(request, TranscriptionBody, max_body_bytes, files=FILES)
        call = with_standing(transcription_call(body, request_id(request)), request)
        if body.stream:
            generation = await while_connected(request.receive, generator.open(call))
            return event_stream(generation, TranscriptEvents(call).encode, call, [])
        answer = await while_connected(request.receive, generator.complete(call))
        return _respond(body, answer, transcript(call, answer))

    @router.post("/v1/audio/translations", openapi_extra=form_body(TranslationBody))
    async def translations(request: Request) -> Response:
        body = await read_form(request, TranslationBody, max_body_bytes, files=FILES)
        call = with_standing(translation_call(body, request_id(request)), request)
        answer = await while_connected(request.receive, generator.complete(call))
        return _respond(body, answer, translation(answer))

    return router


def _respond(body: TranslationBody, answer: Answer, record: Json) -> Response:
    ignored = ignored_header(answer.generation.ignored)
    if body.response_format == "json":
        return JsonResponse(record, headers=ignored)
    return Response(answer.text, headers=ignored | cut_off_header(answer), media_type=TEXT)
