"""The OpenAI dialect's embeddings."""

from __future__ import annotations

import base64
from typing import Annotated, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BeforeValidator, Field, WithJsonSchema

from runner.api.bodies import read_body
from runner.api.context import request_id
from runner.api.documents import json_body
from runner.api.embeddings import LARGEST_TOKEN, MOST_INPUTS, numbers, truncations
from runner.api.standing import vain_standing
from runner.api.streaming import JsonResponse, ignored_header, while_connected
from runner.api.validation import Body, Ignored, ignored_fields, invalid
from runner.model_tasks import ModelTasks, TaskCall


def _read_input(value: object) -> object:
    """A string, strings, tokens, or arrays of tokens: always as a list of texts and tuples of tokens."""
    if isinstance(value, str):
        items: list[object] = [value]
    elif isinstance(value, list) and value and _are_tokens(value):
        items = [value]
    elif isinstance(value, list):
        items = value
    else:
        raise invalid("is an invalid input: it must be a string, an array of strings, or arrays of tokens")
    if not items or len(items) > MOST_INPUTS:
        raise invalid(f"is an invalid input: it must have between 1 and {MOST_INPUTS} items")
    return [_read_item(item, "" if len(items) == 1 else f"[{index}]") for index, item in enumerate(items)]


def _read_item(item: object, where: str) -> str | tuple[int, ...]:
    if isinstance(item, str) and item:
        return item
    if isinstance(item, list) and item and _are_tokens(item):
        return tuple(item)
    raise invalid("is an invalid input: it must be a string or an array of tokens, and not empty", where)


def _are_tokens(items: list[object]) -> bool:
    return all(type(item) is int and 0 <= item <= LARGEST_TOKEN for item in items)


def _read_encoding(value: object) -> object:
    name = value.lower() if isinstance(value, str) else value
    if name not in (None, "float", "base64"):
        raise invalid(f"has an invalid value {str(value)[:40]!r}. Supported values: ['float', 'base64'].")
    return name


_TOKENS = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
Input = Annotated[
    list[str | tuple[int, ...]],
    BeforeValidator(_read_input),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "minLength": 1},
                {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": MOST_INPUTS,
                    "items": {"anyOf": [{"type": "string", "minLength": 1}, _TOKENS]},
                },
                _TOKENS,
            ]
        }
    ),
]


class EmbeddingsRequest(Body):
    model: str = ""
    input: Input
    dimensions: Annotated[int, Field(ge=1)] | None = None
    encoding_format: Annotated[Literal["float", "base64"] | None, BeforeValidator(_read_encoding)] = None
    truncate: bool | None = None
    """Cut inputs that are too long; otherwise they are an error."""
    user: Ignored = None


def create_router(tasks: ModelTasks, max_body_bytes: int) -> APIRouter:
    router = APIRouter()

    @router.post("/v1/embeddings", openapi_extra=json_body(EmbeddingsRequest))
    async def embeddings(request: Request) -> Response:
        body = await read_body(request, EmbeddingsRequest, max_body_bytes)
        call = TaskCall(request_id=request_id(request), model=body.model)
        work = tasks.embed(call, body.input, truncate=bool(body.truncate), dimensions=body.dimensions)
        done = await while_connected(request.receive, work)
        encode = _base64 if body.encoding_format == "base64" else numbers
        answer = {
            "object": "list",
            "data": [
                {"object": "embedding", "embedding": encode(vector), "index": index}
                for index, vector in enumerate(done.vectors)
            ],
            "model": body.model,
            "usage": {"prompt_tokens": done.prompt_tokens, "total_tokens": done.prompt_tokens},
            **truncations(done.shortened),
        }
        return JsonResponse(answer, headers=ignored_header([*ignored_fields(body), *vain_standing(request)]))

    return router


def _base64(vector: bytes) -> str:
    return base64.b64encode(vector).decode()
