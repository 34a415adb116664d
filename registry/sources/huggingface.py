"""Models of the Hugging Face hub: `hf.co/owner/repo[:quantization or file name]`."""

from __future__ import annotations

import asyncio
import importlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from registry.digest import Digest
from registry.errors import ModelNotFound, SourceError, SourceUnreachable
from registry.manifest import (
    LICENSE_LAYER,
    MODEL_LAYER,
    PARAMS_LAYER,
    PROJECTOR_LAYER,
    SYSTEM_LAYER,
    TEMPLATE_LAYER,
)
from registry.name import DEFAULT_TAG, HUB_HOSTS, ModelName
from registry.progress import Notice
from registry.pull_options import PullOptions, http_options
from registry.registries import Registries, RegistryEntry
from registry.sources import quantization
from registry.sources.gguf_choice import ListedFile, Variant, choose, choose_projector, variants
from registry.sources.host_rules import HostRules
from registry.sources.huggingface_api import MAX_TEXT_BYTES, Hub, HubModel, Repository
from registry.sources.huggingface_login import DEFAULT_ENDPOINT, HubLogin, find_login
from registry.sources.resolved import HostPolicy, HttpFile, ResolvedFile, ResolvedModel

if TYPE_CHECKING:
    from registry.sources.web_api import WebApi

_TEXTS = {"template": TEMPLATE_LAYER, "system": SYSTEM_LAYER, "params": PARAMS_LAYER}
"""Files with which a repository's owner says how its models are to be run."""
_LICENCE = re.compile(r"(licen[sc]e|copying)([._-][a-z0-9._-]*)?", re.IGNORECASE)
_SHOWN_NAMES = 12


class HuggingFaceSource:
    """Finds a model's files in a repository's newest commit, and pins them to that commit."""

    def __init__(
        self,
        load_registries: Callable[[], Registries],
        options: PullOptions,
        environ: Mapping[str, str],
        home: Path,
    ) -> None:
        self._load_registries = load_registries
        self._options = options
        self._environ = environ
        self._home = home

    def handles(self, name: ModelName) -> bool:
        return name.host.lower() in HUB_HOSTS

    async def resolve(self, name: ModelName, notice: Notice, *, insecure: bool = False) -> ResolvedModel:
        """As ModelSource says; raises Unauthorized too. `insecure` means nothing here: HF_ENDPOINT says the scheme."""
        login, hosts = await asyncio.to_thread(self._prepare)
        async with await self._open(login, hosts) as api:
            hub = Hub(login, api)
            repository = await hub.repository(f"{name.namespace}/{name.model}")
            files = await hub.files(repository)
            variant = _choose(name, files, notice)
            if repository.is_gated:
                await hub.check_access(repository, variant.files[0].path)
            return await _Resolution(hub, repository, login, hosts, notice).of(variant, files)

    async def search(self, text: str, limit: int, timeout_seconds: float) -> list[HubModel]:
        """Repositories that match, asked for once and not waited for longer than that.

        Raises SourceUnreachable, SourceError or RegistryForbidden.
        """
        login, hosts = await asyncio.to_thread(self._prepare)
        api = await self._open(login, hosts, attempts=1)
        try:
            async with asyncio.timeout(timeout_seconds), api:
                return await Hub(login, api).search(text, limit)
        except TimeoutError:
            raise SourceUnreachable(f"{login.host} has not answered for {timeout_seconds:g} seconds.") from None

    async def _open(self, login: HubLogin, hosts: HostRules, attempts: int | None = None) -> WebApi:
        # Only those who ask the hub pay for loading the HTTP client, and they do it in a thread.
        await asyncio.to_thread(importlib.import_module, "registry.sources.web_api")
        from registry.sources.web_api import ATTEMPTS, WebApi

        return WebApi(login, hosts, http_options(self._options), attempts=attempts or ATTEMPTS)

    def _prepare(self) -> tuple[HubLogin, HostRules]:
        """Login and rules as they are now. The hub that the environment names is allowed by that."""
        login = find_login(self._environ, self._home)
        registries = self._load_registries()
        host = login.host
        entry = registries.find(host) or RegistryEntry(host)
        if login.endpoint.startswith("http:"):
            entry = replace(entry, insecure=True)
        if login.endpoint != DEFAULT_ENDPOINT:
            registries = Registries({**registries.entries, host: entry})
        return login, HostRules(registries)


class _Resolution:
    """One repository's files as the blobs of a model."""

    def __init__(self, hub: Hub, repository: Repository, login: HubLogin, hosts: HostPolicy, notice: Notice) -> None:
        self._hub = hub
        self._repository = repository
        self._login = login
        self._hosts = hosts
        self._notice = notice

    async def of(self, variant: Variant, files: Sequence[ListedFile]) -> ResolvedModel:
        found = [self._file(MODEL_LAYER, file) for file in variant.files]
        projector = choose_projector(files, variant.files[0])
        if projector is not None:
            found.append(self._file(PROJECTOR_LAYER, projector))
        by_path = {file.path: file for file in files}
        for path, media_type in _TEXTS.items():
            if path in by_path:
                found += await self._text(media_type, by_path[path])
        licence = _licence(files)
        if licence is not None:
            found += await self._text(LICENSE_LAYER, licence)
        return ResolvedModel(tuple(found))

    def _file(self, media_type: str, file: ListedFile) -> ResolvedFile:
        return ResolvedFile(
            media_type=media_type,
            places=(HttpFile(self._hub.file_url(self._repository, file.path), self._login, self._hosts),),
            digest=Digest(file.sha256) if file.sha256 else None,
            size=file.size,
            title=file.name,
        )

    async def _text(self, media_type: str, file: ListedFile) -> list[ResolvedFile]:
        """A small file, read here so that its digest is known and nothing unusable is installed."""
        if file.size > MAX_TEXT_BYTES:
            self._notice(f"{file.path} has {file.size} bytes, too many for what it should be, and is left out.")
            return []
        content = await self._hub.text(self._repository, file.path)
        if not content.strip():
            return []
        problem = _problem_of(media_type, content)
        if problem is not None:
            self._notice(f"{file.path} {problem} and is left out.")
            return []
        place = HttpFile(self._hub.file_url(self._repository, file.path), self._login, self._hosts)
        return [ResolvedFile(media_type, (place,), Digest.of(content), len(content), file.name)]


def _choose(name: ModelName, files: Sequence[ListedFile], notice: Notice) -> Variant:
    """The model that a name means. Raises ModelNotFound, which tells what there is, or SourceError."""
    found = variants(files)
    if not found:
        raise ModelNotFound(_without_models(name, files), model=name.short)
    tag = None if name.tag.lower() == DEFAULT_TAG else name.tag
    chosen = choose(found, tag)
    if not chosen:
        raise ModelNotFound(
            f"{_repository_name(name)} has no {tag}; it has {_listed([variant.label for variant in found])}.",
            model=name.short,
        )
    variant, others = chosen[0], chosen[1:]
    if variant.missing:
        raise SourceError(
            f"{_repository_name(name)} has only {len(variant.files)} of the "
            f"{len(variant.files) + variant.missing} shards of {variant.label}."
        )
    if tag is None and variant.quantization != quantization.DEFAULT:
        notice(f"{_repository_name(name)} has no {quantization.DEFAULT}; taking {variant.label}")
    if others:
        names = [other.files[0].name for other in others]
        notice(f"taking {variant.files[0].name}; name a file to take {_listed(names)} instead")
    return variant


def _without_models(name: ModelName, files: Sequence[ListedFile]) -> str:
    names = sorted((file.path for file in files), key=lambda path: (path.count("/"), path.startswith("."), path))
    has = f"it has {_listed(names)}" if names else "it is empty"
    hint = ""
    if any(path.endswith(".safetensors") for path in names):
        hint = " Search for a repository of the same model with GGUF in its name."
    return f"{_repository_name(name)} has no GGUF file; {has}.{hint}"


def _listed(names: Sequence[str]) -> str:
    unique = list(dict.fromkeys(names))
    rest = len(unique) - _SHOWN_NAMES
    return ", ".join(unique[:_SHOWN_NAMES]) + (f" and {rest} more" if rest > 0 else "")


def _repository_name(name: ModelName) -> str:
    return f"{name.host}/{name.namespace}/{name.model}"


def _licence(files: Sequence[ListedFile]) -> ListedFile | None:
    found = [file for file in files if not file.folder and _LICENCE.fullmatch(file.name)]
    return min(found, key=lambda file: (len(file.name), file.name), default=None)


def _problem_of(media_type: str, content: bytes) -> str | None:
    """What keeps a text from being what its file says it is; None for a good one."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return "is no UTF-8 text"
    if media_type != PARAMS_LAYER:
        return None
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return "is no JSON"
    return None if isinstance(document, dict) else "is no JSON object"
