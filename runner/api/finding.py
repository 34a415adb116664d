"""Puna's own paths about models elsewhere: what can be had, and what is newer than what is here."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from fastapi import APIRouter, Request, Response

from registry.errors import InvalidName, RegistryError
from registry.finder import Finder, source_text
from registry.name import HUB_HOSTS, ModelName
from registry.outdated import Verdict
from registry.search import FoundModel
from registry.store import ModelStore
from runner.api.documents import query
from runner.api.streaming import JsonResponse
from runner.errors import InvalidRequest
from runner.supervisor.supervisor import Supervisor

HUB_SECONDS = 4.0
"""A search is a look around, not a download: nobody waits longer for a hub that does not answer."""
SOURCE_SECONDS = 20.0
DEFAULT_RESULTS = 20
MOST_RESULTS = 100
MAX_TEXT = 200

Json = dict[str, object]


def create_router(store: ModelStore, supervisor: Supervisor, finder: Finder) -> APIRouter:
    router = APIRouter()

    @router.get(
        "/api/search",
        openapi_extra=query(
            q={"type": "string", "maxLength": MAX_TEXT},
            limit={"type": "integer", "minimum": 1, "maximum": MOST_RESULTS},
            hub={"enum": ["true", "false"]},
        ),
    )
    async def search(request: Request) -> Response:
        asked = _query(request, {"q", "limit", "hub"})
        text, limit, asks_hub = asked.get("q", ""), _limit(asked.get("limit")), _switch(asked, "hub")
        if len(text) > MAX_TEXT:
            raise InvalidRequest(f"q has {len(text)} characters; at most {MAX_TEXT} are looked for.", "q")
        found = finder.search_catalog(text)
        told: Json = {"asked": asks_hub}
        if asks_hub:
            try:
                found += await finder.search_hub(text, limit, HUB_SECONDS)
                told["reached"] = True
            except RegistryError as error:
                told |= {"reached": False, "error": error.message, "code": error.code}
        installed = await asyncio.to_thread(lambda: [model.name for model in store.models()])
        entries = [_entry(model, installed, supervisor) for model in found]
        return JsonResponse({"models": entries, "hub": told})

    @router.get("/api/outdated", openapi_extra=query(model={"type": "array", "items": {"type": "string"}}))
    async def outdated(request: Request) -> Response:
        _query(request, {"model"})
        names = [_name(text) for text in request.query_params.getlist("model")]
        return JsonResponse({"models": [_verdict(one) for one in await finder.check(names, SOURCE_SECONDS)]})

    return router


def _entry(model: FoundModel, installed: list[ModelName], supervisor: Supervisor) -> Json:
    entry: Json = {
        "name": model.name.short if model.kind == "catalog" else _untagged(model.name),
        "kind": model.kind,
        "names": [name.short for name in model.other_names],
        "description": model.description,
        "license": model.licence,
        "quantization": model.quantization,
        "quantizations": list(model.quantizations),
        "size": model.size,
        "size_is_estimate": model.is_estimate,
        "parameters": model.parameters,
        "context_length": model.context_length,
        "downloads": model.downloads,
        "gated": model.is_gated,
        "fit": supervisor.likely_fit(model.size).value if model.size else None,
        "installed": [name.short for name in installed if _is_one_of(name, model)],
    }
    return {name: value for name, value in entry.items() if value not in (None, [])}


def _is_one_of(installed: ModelName, model: FoundModel) -> bool:
    if model.kind == "catalog":
        return installed.folded in [name.folded for name in (model.name, *model.other_names)]
    return installed.host.lower() in HUB_HOSTS and _place(installed) == _place(model.name)


def _place(name: ModelName) -> tuple[str, str]:
    return name.namespace.lower(), name.model.lower()


def _untagged(name: ModelName) -> str:
    """Without the default tag, which stands for whatever is best in the repository."""
    return f"{name.host}/{name.namespace}/{name.model}"


def _verdict(verdict: Verdict) -> Json:
    told: Json = {"name": verdict.name.short, "state": verdict.state.value, "reason": verdict.reason}
    if verdict.source is not None:
        told["source"] = source_text(verdict.source)
    return told


def _query(request: Request, known: set[str]) -> Mapping[str, str]:
    """The parameters of an address; raises InvalidRequest for unknown ones."""
    for name in request.query_params:
        if name not in known:
            raise InvalidRequest(f"{name[:50]!r} is not known here; known are {', '.join(sorted(known))}.", name[:50])
    return request.query_params


def _limit(text: str | None) -> int:
    if text is None:
        return DEFAULT_RESULTS
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text[:9]) <= MOST_RESULTS:
        raise InvalidRequest(f"limit is a number from 1 to {MOST_RESULTS}.", "limit")
    return int(text)


def _switch(query: Mapping[str, str], name: str) -> bool:
    value = query.get(name, "true")
    if value not in ("true", "false"):
        raise InvalidRequest(f"{name} is true or false.", name)
    return value == "true"


def _name(text: str) -> ModelName:
    try:
        return ModelName.parse(text)
    except InvalidName as error:
        raise InvalidRequest(f"invalid model name: {error.message}", "model") from None
