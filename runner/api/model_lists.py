"""The one path that two dialects share: GET /v1/models, answered in the dialect of the client that asks."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from fastapi import APIRouter, Request, Response

from registry.store import ModelStore
from runner.api.anthropic.models import model_info, models_page
from runner.api.openai.translate import model_entry
from runner.api.streaming import JsonResponse
from runner.generate import find_model


def speaks_anthropic(headers: Mapping[str, str]) -> bool:
    """Whether a request is one of the Anthropic dialect, which always names its version."""
    return "anthropic-version" in headers


def create_router(store: ModelStore) -> APIRouter:
    router = APIRouter()

    @router.get("/v1/models")
    async def models(
        request: Request, after_id: str | None = None, before_id: str | None = None, limit: str | None = None
    ) -> Response:
        stored = await asyncio.to_thread(store.models)
        if speaks_anthropic(request.headers):
            lifecycles = request.query_params.getlist("lifecycle") + request.query_params.getlist("lifecycle[]")
            if lifecycles and "active" not in lifecycles:
                stored = []  # what is installed is never anything else
            return JsonResponse(models_page(stored, after_id, before_id, limit))
        return JsonResponse({"object": "list", "data": [model_entry(model) for model in stored]})

    @router.get("/v1/models/{model:path}")
    async def model(request: Request, model: str) -> Response:
        found = await asyncio.to_thread(find_model, store, model)
        return JsonResponse(model_info(found) if speaks_anthropic(request.headers) else model_entry(found))

    return router
