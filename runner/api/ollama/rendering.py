"""POST /api/render: the exact prompt that a chat or a completion would be answered from. Puna's own."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from runner.api.bodies import read_body
from runner.api.context import request_id
from runner.api.documents import json_body
from runner.api.ollama.schema import RenderBody
from runner.api.ollama.translate import chat_call, generate_call
from runner.api.streaming import JsonResponse, ignored_header, while_connected
from runner.api.validation import ignored_fields
from runner.generate import Generator


def create_router(generator: Generator, max_body_bytes: int) -> APIRouter:
    router = APIRouter()

    @router.post("/api/render", openapi_extra=json_body(RenderBody))
    async def render(request: Request) -> Response:
        body = await read_body(request, RenderBody, max_body_bytes)
        make_call = chat_call if body.is_chat else generate_call
        rendered, ignored = await while_connected(
            request.receive, generator.render(make_call(body, request_id(request)))
        )
        record = {
            "model": body.model,
            "prompt": rendered.text,
            "tokens": list(rendered.tokens),
            "prompt_tokens": len(rendered.tokens),
            "context_length": rendered.context_length,
        }
        return JsonResponse(record, headers=ignored_header([*ignored_fields(body), *ignored]))

    return router
