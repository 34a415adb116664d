"""The Ollama dialect's path for pushing models."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from registry.push import Pusher
from runner.api.bodies import read_body
from runner.api.documents import json_body
from runner.api.ollama.progress import answer_progress
from runner.api.ollama.schema import PushBody
from runner.api.ollama.translate import model_name


def create_router(pusher: Pusher, max_body_bytes: int) -> APIRouter:
    router = APIRouter()

    @router.post("/api/push", openapi_extra=json_body(PushBody))
    async def push(request: Request) -> Response:
        body = await read_body(request, PushBody, max_body_bytes)
        name = model_name(body.model_name)
        return await answer_progress(request, lambda: pusher.push(name, insecure=bool(body.insecure)), body)

    return router
