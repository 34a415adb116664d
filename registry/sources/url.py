"""Models behind a plain address: what their server tells of the files before they are fetched."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from registry.blobs import Blob
from registry.errors import ModelNotFound, SourceError, Unauthorized
from registry.manifest import MODEL_LAYER
from registry.progress import Notice
from registry.pull_options import PullOptions, http_options
from registry.registries import Registries
from registry.sources.credentials import shown
from registry.sources.file_version import version_of
from registry.sources.host_rules import HostRules
from registry.sources.model_url import ModelUrl
from registry.sources.resolved import HttpFile, ResolvedFile, ResolvedModel

if TYPE_CHECKING:
    from registry.sources.web_api import WebApi

_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class UrlFacts:
    """What a server tells of one file without sending it."""

    url: str
    size: int | None
    modified_at: datetime | None
    version: str | None = None
    """What the server calls this state of the file; None where it does not."""


Unchanged = Callable[[str, str | None, int | None], Blob | None]
"""What an address once gave, when it is here; asked with the version and the size that its server tells now. Blocks."""


class UrlSource:
    """Finds out what is behind an address. The rules for hosts decide which may be asked, and how."""

    def __init__(
        self,
        load_registries: Callable[[], Registries],
        options: PullOptions,
        unchanged: Unchanged = lambda address, version, size: None,
    ) -> None:
        self._load_registries = load_registries
        self._options = options
        self._unchanged = unchanged

    async def resolve(self, url: ModelUrl, notice: Notice) -> ResolvedModel:
        """The files at an address and, when it is a shard's, at those of the others.

        Digests come with the bytes, but for files that are here already and have not changed since.
        Raises ModelNotFound, Unauthorized, SourceError, SourceUnreachable or RegistryForbidden.
        """
        hosts = await self._hosts()
        facts = await self._ask(url, hosts)
        if len(facts) > 1:
            notice(f"{url.file_name} is one of {len(facts)} shards, which are fetched together")
        return ResolvedModel(tuple([await self._file(one, hosts) for one in facts]))

    async def facts(self, url: ModelUrl) -> list[UrlFacts]:
        """Of each file, in order. Raises as `resolve`."""
        return await self._ask(url, await self._hosts())

    async def _file(self, facts: UrlFacts, hosts: HostRules) -> ResolvedFile:
        here = await asyncio.to_thread(self._unchanged, facts.url, facts.version, facts.size)
        return ResolvedFile(
            media_type=MODEL_LAYER,
            places=(HttpFile(facts.url, None, hosts),),
            digest=here.digest if here is not None else None,
            size=here.size if here is not None else facts.size,
            title=ModelUrl(facts.url).file_name,
            version=facts.version,
        )

    async def _hosts(self) -> HostRules:
        return HostRules(await asyncio.to_thread(self._load_registries))

    async def _ask(self, url: ModelUrl, hosts: HostRules) -> list[UrlFacts]:
        # Only those who ask pay for loading the HTTP client, and they do it in a thread.
        await asyncio.to_thread(importlib.import_module, "registry.sources.web_api")
        from registry.sources.web_api import WebApi

        gate = asyncio.Semaphore(_AT_ONCE)
        async with WebApi(None, hosts, http_options(self._options)) as api:

            async def ask(one: str) -> UrlFacts:
                async with gate:
                    return await _facts(api, one)

            return list(await asyncio.gather(*(ask(one) for one in url.files)))


async def _facts(api: WebApi, url: str) -> UrlFacts:
    answer = await api.head(url)
    if answer.status in (404, 410):
        raise ModelNotFound(f"There is no file {shown(url)}.", model=shown(url))
    if answer.status in (401, 403):
        raise Unauthorized(f"{shown(url)} is not given to everybody (status {answer.status}).")
    if answer.status in (405, 501):  # servers that only know how to send
        return UrlFacts(url, None, None)
    if not answer.is_success:
        raise SourceError(f"{shown(url)} answers with status {answer.status}.", http_status=answer.status)
    if answer.headers.get("Content-Type", "").partition(";")[0].strip().lower() == "text/html":
        raise SourceError(f"{shown(url)} is a web page, not a model; look there for the file's own address.")
    length = answer.headers.get("Content-Length", "")
    is_plain = answer.headers.get("Content-Encoding", "identity") == "identity"
    size = int(length) if is_plain and length.isdecimal() and len(length) < 16 else None
    return UrlFacts(url, size, _time(answer.headers.get("Last-Modified")), version_of(answer.headers))


def _time(text: str | None) -> datetime | None:
    try:
        found = parsedate_to_datetime(text or "")
    except ValueError:
        return None
    return found.replace(tzinfo=found.tzinfo or UTC)
