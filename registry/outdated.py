"""Whether the sources of installed models have something newer, and why where nobody can tell."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from registry.errors import InvalidRequest, ModelNotFound, RegistryError
from registry.manifest import (
    ADAPTER_LAYER,
    DRAFT_LAYER,
    LICENSE_LAYER,
    MESSAGES_LAYER,
    MODEL_LAYER,
    PARAMS_LAYER,
    PROJECTOR_LAYER,
    SYSTEM_LAYER,
    TEMPLATE_LAYER,
    Manifest,
)
from registry.name import HUB_HOSTS, ModelName
from registry.origins import Origin
from registry.sources.model_url import ModelUrl, parse_model_url
from registry.sources.resolved import ResolvedModel
from registry.sources.url import UrlFacts

AT_ONCE = 8
_WORDS: Mapping[str, str] = {
    MODEL_LAYER: "weights",
    PROJECTOR_LAYER: "projector",
    ADAPTER_LAYER: "adapter",
    DRAFT_LAYER: "draft model",
    TEMPLATE_LAYER: "template",
    SYSTEM_LAYER: "system text",
    PARAMS_LAYER: "parameters",
    MESSAGES_LAYER: "messages",
    LICENSE_LAYER: "licence",
}


class Freshness(Enum):
    CURRENT = "current"
    OUTDATED = "outdated"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Installed:
    """A model as it is here."""

    name: ModelName
    digest: str
    """Of its manifest."""
    manifest: Manifest
    origin: Origin | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of asking a model's source."""

    name: ModelName
    state: Freshness
    reason: str
    """What has changed, or why that cannot be told; empty for a model that is current."""
    source: ModelName | ModelUrl | None
    """Where `update` would fetch it from."""


Resolve = Callable[[ModelName], Awaitable[ResolvedModel]]
AskUrl = Callable[[ModelUrl], Awaitable[list[UrlFacts]]]


async def check_all(
    models: Iterable[Installed], resolve: Resolve, ask_url: AskUrl, *, timeout_seconds: float
) -> list[Verdict]:
    """Ask the source of every model, several at once; the verdicts come in the models' order and none raises."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(model: Installed) -> Verdict:
        async with gate:
            return await _check(model, resolve, ask_url, timeout_seconds)

    return list(await asyncio.gather(*(one(model) for model in models)))


def source_of(name: ModelName, origin: Origin | None) -> ModelName | ModelUrl | None:
    """Where a model was fetched from; None when that was not noted and its name does not tell."""
    if origin is None:
        return name if name.host.lower() in HUB_HOSTS else None
    try:
        return parse_model_url(origin.source) or ModelName.parse(origin.source)
    except InvalidRequest:
        return None


def changes(installed: Installed, now: ResolvedModel) -> tuple[Freshness, str]:
    """What a source has now, against what is here."""
    if now.manifest is not None:
        if hashlib.sha256(now.manifest).hexdigest() == installed.digest:
            return Freshness.CURRENT, ""
        theirs = [(layer.media_type, str(layer.digest)) for layer in Manifest.from_bytes(now.manifest).layers]
        return _outdated(_changed(_digests(installed), theirs) or ["config"])
    undigested = {file.media_type for file in now.files if file.digest is None}
    words = _changed(
        [one for one in _digests(installed) if one[0] not in undigested],
        [(file.media_type, str(file.digest)) for file in now.files if file.media_type not in undigested],
    )
    told = [(file.media_type, file.size) for file in now.files if file.media_type in undigested]
    here = [(layer.media_type, layer.size) for layer in installed.manifest.layers if layer.media_type in undigested]
    if all(size is not None for _, size in told):
        words += _changed(here, told)
    if words:
        return _outdated(words)
    if undigested:
        return Freshness.UNKNOWN, "the source tells no digest, and sizes alone do not show every change"
    return Freshness.CURRENT, ""


def url_changes(installed: Installed, facts: Iterable[UrlFacts]) -> tuple[Freshness, str]:
    """What a plain server tells, which is sizes and times, against what is here."""
    told = list(facts)
    sizes = [layer.size for layer in installed.manifest.of_type(MODEL_LAYER)]
    if any(one.size is not None and one.size not in sizes for one in told) or len(told) != len(sizes):
        return Freshness.OUTDATED, "the file has another size at its source"
    fetched_at = installed.origin.fetched_at if installed.origin else None
    times = [one.modified_at for one in told]
    if fetched_at is None or any(one is None for one in times):
        return Freshness.UNKNOWN, "the server does not say when the file was changed"
    if any(one is not None and one > fetched_at for one in times):
        return Freshness.OUTDATED, "the file was changed at its source after it was fetched"
    return Freshness.CURRENT, ""


async def _check(model: Installed, resolve: Resolve, ask_url: AskUrl, timeout_seconds: float) -> Verdict:
    source = source_of(model.name, model.origin)
    if source is None:
        return Verdict(model.name, Freshness.UNKNOWN, "made here, or it is not known where it came from", None)
    try:
        async with asyncio.timeout(timeout_seconds):
            if isinstance(source, ModelUrl):
                state, reason = url_changes(model, await ask_url(source))
            else:
                state, reason = changes(model, await resolve(source))
    except TimeoutError:
        state, reason = Freshness.UNKNOWN, f"no answer for {timeout_seconds:g} seconds"
    except ModelNotFound as error:
        state, reason = Freshness.UNKNOWN, f"gone from its source: {error.message}"
    except RegistryError as error:
        state, reason = Freshness.UNKNOWN, error.message
    return Verdict(model.name, state, reason, source)


def _outdated(words: list[str]) -> tuple[Freshness, str]:
    return Freshness.OUTDATED, f"changed at its source: {', '.join(words)}"


def _digests(installed: Installed) -> list[tuple[str, str]]:
    return [(layer.media_type, str(layer.digest)) for layer in installed.manifest.layers]


def _changed(ours: Iterable[tuple[str, object]], theirs: Iterable[tuple[str, object]]) -> list[str]:
    """The kinds of layers that differ, as words, weights first."""
    here, there = Counter(ours), Counter(theirs)
    kinds = {kind for kind, _ in [*(here - there), *(there - here)]}
    return [word for kind, word in _WORDS.items() if kind in kinds] + (["files"] if kinds - set(_WORDS) else [])
