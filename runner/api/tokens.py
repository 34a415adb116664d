"""Puna's own routes for tokens: a text's, and the text of some."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from runner.api.bodies import read_body
from runner.api.context import request_id
from runner.api.documents import json_body
from runner.api.embeddings import Token
from runner.api.standing import vain_standing
from runner.api.streaming import JsonResponse, ignored_header, while_connected
from runner.api.validation import Body
from runner.model_tasks import ModelTasks, TaskCall


class TokenizeBody(Body):
    model: str = ""
    content: str
    add_special: bool | None = None
    """With the tokens that the model wants in front and behind."""
    parse_special: bool | None = None
    """Texts of control tokens become those tokens."""


class DetokenizeBody(Body):
    model: str = ""
    tokens: list[Token]


def create_router(tasks: ModelTasks, max_body_bytes: int) -> APIRouter:
    router = APIRouter()

    @router.post("/api/tokenize", openapi_extra=json_body(TokenizeBody))
    async def tokenize(request: Request) -> Response:
        body = await read_body(request, TokenizeBody, max_body_bytes)
        call = TaskCall(request_id=request_id(request), model=body.model)
        work = tasks.tokenize(
            call, body.content, add_special=bool(body.add_special), parse_special=bool(body.parse_special)
        )
        tokens = await while_connected(request.receive, work)
        return JsonResponse(
            {"model": body.model, "tokens": tokens, "count": len(tokens)},
            headers=ignored_header(vain_standing(request)),
        )

    @router.post("/api/detokenize", openapi_extra=json_body(DetokenizeBody))
    async def detokenize(request: Request) -> Response:
        body = await read_body(request, DetokenizeBody, max_body_bytes)
        call = TaskCall(request_id=request_id(request), model=body.model)
        content = await while_connected(request.receive, tasks.detokenize(call, body.tokens))
        return JsonResponse({"model": body.model, "content": content}, headers=ignored_header(vain_standing(request)))

    return router
