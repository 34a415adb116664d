"""The paths that two dialects share: those of /v1/models, answered in the dialect of the client that asks."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from fastapi import APIRouter, Request, Response

from registry.store import ModelStore
from runner.api.anthropic.models import MOST, model_info, models_on_page, models_page
from runner.api.documents import query
from runner.api.openai.translate import model_entry
from runner.api.removal import Remover
from runner.api.streaming import JsonResponse
from runner.errors import InvalidRequest
from runner.model_lookup import find_model

_LIFECYCLES = ("active", "deprecated", "retired")


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
            lifecycle={"type": "array", "items": {"enum": [*_LIFECYCLES]}},
        ),
    )
    async def models(request: Request) -> Response:
        asked = request.query_params
        stored = await asyncio.to_thread(store.models)
        if not _wants_active(asked.getlist("lifecycle") + asked.getlist("lifecycle[]")):
            stored = []
        page, has_more = models_on_page(stored, asked.get("after_id"), asked.get("before_id"), asked.get("limit"))
        if speaks_anthropic(request.headers):
            return JsonResponse(models_page(page, has_more=has_more))
        # OpenAI's clients know of no pages and ask for none.
        listed = page if asked.keys() & {"after_id", "before_id", "limit"} else stored
        return JsonResponse({"object": "list", "data": [model_entry(model) for model in listed]})

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


def _wants_active(lifecycles: list[str]) -> bool:
    """Whether models are asked for that are as all installed ones are. Raises InvalidRequest."""
    if unknown := set(lifecycles) - set(_LIFECYCLES):
        raise InvalidRequest(f"lifecycle {min(unknown)[:50]!a} is not one of {', '.join(_LIFECYCLES)}.", "lifecycle")
    return not lifecycles or "active" in lifecycles
