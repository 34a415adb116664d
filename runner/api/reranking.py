"""Documents by how well they answer a query: /api/rerank, and /v1/rerank in the shape of Cohere and Jina."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import BeforeValidator, Field, WithJsonSchema

from runner.api.bodies import read_body
from runner.api.context import request_id
from runner.api.documents import json_body
from runner.api.embeddings import MOST_INPUTS, numbers, truncations
from runner.api.standing import vain_standing
from runner.api.streaming import JsonResponse, ignored_header, while_connected
from runner.api.validation import Body, Ignored, KeepAlive, ignored_fields, invalid
from runner.model_tasks import Encodings, ModelTasks, TaskCall


def _read_text(value: object) -> object:
    """A text, as it is or as `{"text": …}`."""
    if isinstance(value, dict) and value.keys() == {"text"}:
        value = value["text"]
    if not isinstance(value, str):
        raise invalid('must be a string or an object with "text"')
    return value


Text = Annotated[
    str,
    BeforeValidator(_read_text),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {
                    "type": "object",
                    "properties": {"text": {"type": "string"}},
                    "required": ["text"],
                    "additionalProperties": False,
                },
            ]
        }
    ),
]


class RerankBody(Body):
    model: str = ""
    query: Text
    documents: Annotated[list[Text], Field(max_length=MOST_INPUTS)]
    top_n: Annotated[int, Field(ge=1)] | None = None
    """Only so many of the best."""
    return_documents: bool | None = None
    truncate: bool | None = None
    """Cut documents that are too long with the query; otherwise they are an error."""
    keep_alive: KeepAlive = None
    options: dict[str, Any] | None = None


class RerankRequest(Body):
    model: str = ""
    query: Text
    documents: Annotated[list[Text], Field(max_length=MOST_INPUTS)]
    top_n: Annotated[int, Field(ge=1)] | None = None
    return_documents: bool | None = None
    truncate: bool | None = None
    user: Ignored = None


def create_router(tasks: ModelTasks, max_body_bytes: int) -> APIRouter:
    router = APIRouter()

    @router.post("/api/rerank", openapi_extra=json_body(RerankBody))
    async def rerank(request: Request) -> Response:
        body = await read_body(request, RerankBody, max_body_bytes)
        call = TaskCall(
            request_id=request_id(request), model=body.model, options=body.options or {}, keep_alive=body.keep_alive
        )
        done = await _ranked(tasks, call, body, request)
        answer = {"model": body.model, "results": _results(body, done), **truncations(done.shortened)}
        return JsonResponse(answer, headers=ignored_header([*done.ignored, *vain_standing(request)]))

    @router.post("/v1/rerank", openapi_extra=json_body(RerankRequest))
    async def rerank_v1(request: Request) -> Response:
        body = await read_body(request, RerankRequest, max_body_bytes)
        call = TaskCall(request_id=request_id(request), model=body.model)
        done = await _ranked(tasks, call, body, request)
        answer = {
            "id": call.request_id,
            "object": "list",
            "model": body.model,
            "results": _results(body, done),
            "usage": {"prompt_tokens": done.prompt_tokens, "total_tokens": done.prompt_tokens},
            **truncations(done.shortened),
        }
        return JsonResponse(answer, headers=ignored_header([*ignored_fields(body), *vain_standing(request)]))

    return router


async def _ranked(tasks: ModelTasks, call: TaskCall, body: RerankBody | RerankRequest, request: Request) -> Encodings:
    work = tasks.rerank(call, body.query, body.documents, truncate=bool(body.truncate))
    return await while_connected(request.receive, work)


def _results(body: RerankBody | RerankRequest, done: Encodings) -> list[dict[str, object]]:
    """The best first; documents that are equally good in the order they came."""
    scores = [numbers(vector)[0] for vector in done.vectors]
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    results: list[dict[str, object]] = []
    for index in order[: body.top_n]:
        result: dict[str, object] = {"index": index, "relevance_score": scores[index]}
        if body.return_documents:
            result["document"] = {"text": body.documents[index]}
        results.append(result)
    return results
