"""Puna's own paths about the store's health: verify, repair, collect garbage, and downloads that broke off."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable

import msgspec
from fastapi import APIRouter, Request, Response

from registry.finder import Finder
from registry.garbage import collect_garbage, find_garbage
from registry.partial_models import list_partial_models, remove_partial
from registry.progress import Progress
from registry.pull import Puller
from registry.repair import repair
from registry.store import ModelStore
from registry.stored_model import StoredModel
from registry.verify import Verification, verify
from runner.api.bodies import read_body
from runner.api.context import request_id
from runner.api.documents import json_body
from runner.api.errors import report_of
from runner.api.ollama.records import error_record, progress_body
from runner.api.store_records import Json, collection_body, partial_body, verification_body
from runner.api.streaming import NDJSON, JsonResponse, Opened, StreamResponse, while_connected
from runner.api.validation import Body
from runner.errors import InvalidRequest
from runner.model_lookup import find_model

Step = Progress | Verification


class VerifyBody(Body):
    model: str | None = None
    all: bool = False
    stream: bool | None = None


class RepairBody(Body):
    model: str
    stream: bool | None = None


class GarbageBody(Body):
    dry_run: bool = False


class PartialBody(Body):
    partial: str
    """A model's name, or the digest of a file or its beginning."""


def create_router(store: ModelStore, puller: Puller, finder: Finder, max_body_bytes: int) -> APIRouter:
    router = APIRouter()

    @router.post("/api/verify", openapi_extra=json_body(VerifyBody))
    async def verify_models(request: Request) -> Response:
        body = await read_body(request, VerifyBody, max_body_bytes)
        models = await asyncio.to_thread(_chosen, store, body)
        return await _answer(request, lambda: verify(store, models), wants_stream=body.stream is not False)

    @router.post("/api/repair", openapi_extra=json_body(RepairBody))
    async def repair_model(request: Request) -> Response:
        body = await read_body(request, RepairBody, max_body_bytes)
        model = await asyncio.to_thread(find_model, store, body.model)
        finds = await asyncio.to_thread(finder.finds, model)
        return await _answer(
            request, lambda: repair(store, puller, model.name, finds), wants_stream=body.stream is not False
        )

    @router.post("/api/gc", openapi_extra=json_body(GarbageBody))
    async def garbage(request: Request) -> Response:
        body = await read_body(request, GarbageBody, max_body_bytes)
        found = await asyncio.to_thread(find_garbage if body.dry_run else collect_garbage, store)
        return JsonResponse(collection_body(found, is_dry_run=body.dry_run))

    @router.get("/api/partials")
    async def partials() -> Response:
        found = await asyncio.to_thread(list_partial_models, store)
        return JsonResponse({"partials": [partial_body(model) for model in found]})

    @router.delete("/api/partials", openapi_extra=json_body(PartialBody))
    async def forget_partial(request: Request) -> Response:
        body = await read_body(request, PartialBody, max_body_bytes)
        removed = await asyncio.to_thread(remove_partial, store, body.partial)
        return JsonResponse(partial_body(removed))

    return router


def _chosen(store: ModelStore, body: VerifyBody) -> list[StoredModel]:
    if body.all and body.model:
        raise InvalidRequest("Send either a model or all.", "all")
    if body.all:
        return store.models()
    if not body.model:
        raise InvalidRequest("model is required, or all", "model")
    return [find_model(store, body.model)]


async def _answer(request: Request, start: Callable[[], AsyncGenerator[Step]], *, wants_stream: bool) -> Response:
    """Records of how far it is, and of what was found; without a stream, what was found alone."""
    if not wants_stream:
        return JsonResponse(await while_connected(request.receive, _found(start)))
    opened = await while_connected(request.receive, Opened.open(start()))
    return StreamResponse(
        opened,
        lambda step: msgspec.json.encode(_body(step)) + b"\n",
        lambda error: error_record(report_of(error, request_id(request))),
        NDJSON,
    )


async def _found(start: Callable[[], AsyncGenerator[Step]]) -> Json:
    told: Json = {}
    async with contextlib.aclosing(start()) as steps:
        async for step in steps:
            if isinstance(step, Verification):
                told = _body(step)
    return told


def _body(step: Step) -> Json:
    return verification_body(step) if isinstance(step, Verification) else progress_body(step)
