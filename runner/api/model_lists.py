"""The paths that two dialects share: those of /v1/models, answered in the dialect of the client that asks."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from fastapi import APIRouter, Request, Response

from registry.store import ModelStore
from runner.api.anthropic.models import MOST, model_info, models_page
from runner.api.documents import query
from runner.api.openai.translate import model_entry
from runner.api.removal import Remover
from runner.api.streaming import JsonResponse
from runner.generate import find_model


def speaks_anthropic(headers: Mapping[str, str]) -> bool:
    """Whether a request is one of the Anthropic dialect, which always names its version."""
    return "anthropic-version" in headers


def create_router(store: ModelStore, remover: Remover) -> APIRouter:
    router = APIRouter()

    @router.get(
        "/v1/models",
        openapi_extra=query(
            after_id={"type": "string"},
            before_id={"type": "string"},
            limit={"type": "integer", "minimum": 1, "maximum": MOST, "default": 20},
            lifecycle={"type": "array", "items": {"enum": ["active", "deprecated", "retired"]}},
        ),
    )
    async def models(request: Request) -> Response:
        asked = request.query_params
        stored = await asyncio.to_thread(store.models)
        if speaks_anthropic(request.headers):
            lifecycles = asked.getlist("lifecycle") + asked.getlist("lifecycle[]")
            if lifecycles and "active" not in lifecycles:
                stored = []  # what is installed is never anything else
            return JsonResponse(models_page(stored, asked.get("after_id"), asked.get("before_id"), asked.get("limit")))
        return JsonResponse({"object": "list", "data": [model_entry(model) for model in stored]})

    @router.get("/v1/models/{model:path}")
    async def model(request: Request, model: str) -> Response:
        found = await asyncio.to_thread(find_model, store, model)
        return JsonResponse(model_info(found) if speaks_anthropic(request.headers) else model_entry(found))

    @router.delete("/v1/models/{model:path}")
    async def delete(model: str) -> Response:
        # Only OpenAI's dialect has it, and its clients read nothing but these fields.
        await remover.remove(model, is_forced=False)
        return JsonResponse({"id": model, "object": "model", "deleted": True})

    return router
