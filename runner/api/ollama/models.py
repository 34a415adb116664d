"""The Ollama dialect's paths about models: what there is, what is loaded, and how both change."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from fastapi import APIRouter, Request, Response

from registry.blobs import PIECE_BYTES
from registry.create import create_model
from registry.digest import Digest
from registry.errors import DigestMismatch, InvalidName, RegistryError
from registry.errors import ModelNotFound as NotInstalled
from registry.finder import Target
from registry.name import ModelName
from registry.progress import Progress
from registry.recipe import Recipe, check_recipe
from registry.store import ModelStore
from registry.workshop import Workshop
from runner.api.bodies import read_body, stream_body
from runner.api.documents import json_body, raw_body
from runner.api.downloads import Downloads
from runner.api.ollama.describe import fit_body, loaded_model, model_details, model_entry
from runner.api.ollama.progress import answer_progress
from runner.api.ollama.schema import CopyBody, CreateBody, DeleteBody, PullBody, ShowBody
from runner.api.ollama.translate import recipe
from runner.api.removal import Remover, is_installed
from runner.api.store_records import plan_body
from runner.api.streaming import JsonResponse, ignored_header, while_connected
from runner.api.validation import ignored_fields
from runner.errors import InvalidRequest, ModelNotFound
from runner.model_lookup import find_model
from runner.supervisor.fit import FitMeter
from runner.supervisor.likely_speed import memory_speed
from runner.supervisor.supervisor import Supervisor


def create_router(
    store: ModelStore,
    supervisor: Supervisor,
    downloads: Downloads,
    remover: Remover,
    workshop: Workshop | None,
    fit_meter: FitMeter | None,
    max_body_bytes: int,
) -> APIRouter:
    router = APIRouter()

    @router.get("/api/tags")
    @router.head("/api/tags", include_in_schema=False)
    async def tags() -> Response:
        return JsonResponse({"models": await asyncio.to_thread(lambda: [model_entry(one) for one in store.models()])})

    @router.get("/api/ps")
    async def loaded() -> Response:
        return JsonResponse({"models": [loaded_model(status) for status in supervisor.status()]})

    @router.post("/api/show", openapi_extra=json_body(ShowBody))
    async def show(request: Request) -> Response:
        body = await read_body(request, ShowBody, max_body_bytes)
        shown = await asyncio.to_thread(
            lambda: model_details(find_model(store, body.model_name), verbose=bool(body.verbose))
        )
        if fit_meter is not None:
            shown["fit"] = fit_body(await fit_meter.fit(await asyncio.to_thread(find_model, store, body.model_name)))
        return JsonResponse(shown, headers=ignored_header(ignored_fields(body)))

    @router.post("/api/copy", openapi_extra=json_body(CopyBody))
    async def copy(request: Request) -> Response:
        body = await read_body(request, CopyBody, max_body_bytes)
        await asyncio.to_thread(_copy, store, body.source, body.destination)
        return Response()

    @router.delete("/api/delete", openapi_extra=json_body(DeleteBody))
    async def delete(request: Request) -> Response:
        body = await read_body(request, DeleteBody, max_body_bytes)
        await remover.remove(body.model_name, is_forced=bool(body.force))
        return Response()

    @router.post("/api/pull", openapi_extra=json_body(PullBody))
    async def pull(request: Request) -> Response:
        body = await read_body(request, PullBody, max_body_bytes)
        wanted = _pull_target(body)
        if body.dry_run:
            plan = downloads.plan(wanted.name, source=wanted.named_source, insecure=bool(body.insecure))
            found = await while_connected(request.receive, plan)
            told = plan_body(found, supervisor.likely_fit, await asyncio.to_thread(memory_speed))
            return JsonResponse(told, headers=ignored_header(ignored_fields(body)))
        return await answer_progress(
            request,
            lambda: downloads.pull(wanted.name, source=wanted.named_source, insecure=bool(body.insecure)),
            body,
        )

    @router.post("/api/create", openapi_extra=json_body(CreateBody))
    async def create(request: Request) -> Response:
        body = await read_body(request, CreateBody, max_body_bytes)
        wanted = recipe(body)
        if wanted.template and wanted.template.strip():
            await asyncio.to_thread(_check_template, wanted.template)
        return await answer_progress(request, lambda: _create(store, downloads, workshop, wanted), body)

    @router.head("/api/blobs/{digest}")
    async def has_blob(digest: str) -> Response:
        if not await asyncio.to_thread(store.has_blob, _parse_digest(digest)):
            raise ModelNotFound(f'blob "{digest}" not found')
        return Response()

    @router.post("/api/blobs/{digest}", openapi_extra=raw_body())
    async def add_blob(request: Request, digest: str) -> Response:
        expected = _parse_digest(digest)
        if await asyncio.to_thread(store.has_blob, expected):
            return Response()
        await _store_blob(store, expected, request)
        return Response(status_code=201)

    return router


def _pull_target(body: PullBody) -> Target:
    """What is to be pulled, and under which name. Raises InvalidRequest."""
    try:
        return Target.parse(body.model_name, body.as_)
    except InvalidName as error:
        raise InvalidRequest(f"invalid model name: {error.message}", "as" if body.as_ else "model") from None


def _check_template(source: str) -> None:
    # Only here does the daemon need what reads templates.
    from runner.chat.template import check_template

    check_template(source)


def _copy(store: ModelStore, source: str, destination: str) -> None:
    names = []
    for role, text in (("source", source), ("destination", destination)):
        try:
            names.append(ModelName.parse(text))
        except InvalidName:
            raise InvalidRequest(f'{role} "{text[:200]}" is invalid', role) from None
    try:
        store.copy(*names)
    except NotInstalled:
        raise ModelNotFound(f'model "{source}" not found', model=source) from None


async def _create(
    store: ModelStore, downloads: Downloads, workshop: Workshop | None, recipe: Recipe
) -> AsyncGenerator[Progress, None]:
    """A creation's progress, after that of pulling the models it is made of that are not here yet."""
    # What is wrong is told before gigabytes come.
    check_recipe(recipe)
    for name in recipe.models:
        if await asyncio.to_thread(is_installed, store, name):
            continue
        async with contextlib.aclosing(downloads.pull(name)) as steps:
            async for progress in steps:
                if progress.status != "success":
                    yield progress
    async with contextlib.aclosing(create_model(store, recipe, workshop)) as steps:
        async for progress in steps:
            yield progress


async def _store_blob(store: ModelStore, expected: Digest, request: Request) -> None:
    """Take a body of any size into the store; a slow disk slows its sender down and nobody else."""
    writer = store.blob_writer(expected)
    try:
        piece = bytearray()
        async for chunk in stream_body(request):
            piece += chunk
            if len(piece) >= PIECE_BYTES:
                await asyncio.to_thread(writer.write, bytes(piece))
                piece.clear()
        await asyncio.to_thread(writer.write, bytes(piece))
        await asyncio.to_thread(writer.commit)
    except DigestMismatch as error:
        raise InvalidRequest(error.message, "digest") from None
    finally:
        await asyncio.to_thread(writer.abort)


def _parse_digest(text: str) -> Digest:
    try:
        return Digest.parse(text)
    except RegistryError:
        raise InvalidRequest("invalid digest format", "digest") from None
