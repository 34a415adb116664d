"""The Ollama dialect's embeddings, in their present form and the older one."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import BeforeValidator, Field, WithJsonSchema

from runner.api.bodies import read_body
from runner.api.context import arrived_ns, request_id
from runner.api.documents import json_body
from runner.api.embeddings import MOST_INPUTS, numbers, truncations
from runner.api.standing import vain_standing
from runner.api.streaming import JsonResponse, ignored_header, while_connected
from runner.api.validation import Body, KeepAlive, invalid
from runner.model_tasks import ModelTasks, TaskCall

_RAW_ARCHITECTURES = ("bert", "nomic-bert")
"""What the older route gives from these has its own length; clients compare it with what they have stored."""


def _read_input(value: object) -> object:
    if value is None or value == "":
        return []
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise invalid("has an invalid input type; expected a string or an array of strings")
    if len(items) > MOST_INPUTS:
        raise invalid(f"has {len(items)} inputs; at most {MOST_INPUTS} are taken at once")
    return items


Input = Annotated[
    list[str],
    BeforeValidator(_read_input),
    WithJsonSchema(
        {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "maxItems": MOST_INPUTS}]}
    ),
]


class EmbedBody(Body):
    model: str = ""
    input: Input = Field(default_factory=list)
    truncate: bool | None = None
    """Cut inputs that are too long; otherwise they are an error."""
    dimensions: Annotated[int, Field(ge=0)] | None = None
    """Of the vectors; 0 for all there are."""
    keep_alive: KeepAlive = None
    options: dict[str, Any] | None = None


class EmbeddingsBody(Body):
    model: str = ""
    prompt: str | None = None
    truncate: bool | None = None
    """Puna's own here."""
    keep_alive: KeepAlive = None
    options: dict[str, Any] | None = None


def create_router(tasks: ModelTasks, max_body_bytes: int) -> APIRouter:
    router = APIRouter()

    @router.post("/api/embed", openapi_extra=json_body(EmbedBody))
    async def embed(request: Request) -> Response:
        body = await read_body(request, EmbedBody, max_body_bytes)
        work = tasks.embed(
            _call(body, request), body.input, truncate=bool(body.truncate), dimensions=body.dimensions or None
        )
        done = await while_connected(request.receive, work)
        answer = {
            "model": body.model,
            "embeddings": [numbers(vector) for vector in done.vectors],
            "total_duration": time.monotonic_ns() - arrived_ns(request),
            "load_duration": done.load_ns,
            "prompt_eval_count": done.prompt_tokens,
            **truncations(done.shortened),
        }
        return JsonResponse(answer, headers=ignored_header([*done.ignored, *vain_standing(request)]))

    @router.post("/api/embeddings", openapi_extra=json_body(EmbeddingsBody))
    async def embeddings(request: Request) -> Response:
        body = await read_body(request, EmbeddingsBody, max_body_bytes)
        inputs = [body.prompt] if body.prompt else []
        work = tasks.embed(_call(body, request), inputs, truncate=bool(body.truncate), keeps_length=_RAW_ARCHITECTURES)
        done = await while_connected(request.receive, work)
        vector = numbers(done.vectors[0]) if done.vectors else []
        answer = {"embedding": vector, **truncations(done.shortened)}
        return JsonResponse(answer, headers=ignored_header([*done.ignored, *vain_standing(request)]))

    return router


def _call(body: EmbedBody | EmbeddingsBody, request: Request) -> TaskCall:
    return TaskCall(
        request_id=request_id(request), model=body.model, options=body.options or {}, keep_alive=body.keep_alive
    )
