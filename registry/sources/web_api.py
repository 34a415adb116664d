"""Small documents from web APIs: whole, of bounded size, with the status and headers they came with."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from urllib.parse import urljoin, urlsplit

import httpx

from registry.errors import SourceError, SourceUnreachable
from registry.sources.credentials import shown
from registry.sources.resolved import Authorizer, HostPolicy

MAX_REDIRECTS = 5
ATTEMPTS = 3
_PAUSE_SECONDS = 0.3
_TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Answer:
    """What came, whatever its status."""

    url: str
    """After redirects."""
    status: int
    headers: httpx.Headers
    body: bytes

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300


class WebApi:
    """Asks one service, with the login that is its own; an async context manager that owns its connections."""

    def __init__(
        self,
        authorizer: Authorizer,
        hosts: HostPolicy | None,
        *,
        proxy: str | None = None,
        ca_bundle: Path | None = None,
        timeout_seconds: float = 20.0,
        attempts: int = ATTEMPTS,
    ) -> None:
        self._authorizer = authorizer
        self._hosts = hosts
        self._proxy = proxy
        self._ca_bundle = ca_bundle
        self._timeout = timeout_seconds
        self._attempts = attempts
        self._clients: dict[bool, httpx.AsyncClient] = {}

    async def __aenter__(self) -> WebApi:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in self._clients.values():
            await client.aclose()

    async def get(self, url: str, *, limit: int, accept: str = "application/json") -> Answer:
        """A document of at most `limit` bytes, after redirects.

        Raises SourceUnreachable when nothing answers, SourceError for what is too long or leads astray,
        RegistryForbidden for a host that may not be asked.
        """
        return await self._patiently("GET", url, limit, accept)

    async def head(self, url: str, *, follow: bool = True) -> Answer:
        """The status and headers of a document; as `get` otherwise."""
        return await self._patiently("HEAD", url, 0, "*/*", follow=follow)

    async def _patiently(self, method: str, url: str, limit: int, accept: str, *, follow: bool = True) -> Answer:
        answer: Answer | None = None
        problem: Exception | None = None
        for attempt in range(self._attempts):
            await asyncio.sleep(_PAUSE_SECONDS * attempt)
            try:
                answer = await self._follow(method, url, limit, accept, follow)
            except (httpx.TransportError, httpx.StreamError) as error:
                problem = error
                continue
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise SourceError(f"{shown(url)} did not answer as HTTP should ({_words(error)}).") from error
            if answer.status not in _TRY_AGAIN:
                return answer
        if answer is not None:
            raise SourceUnreachable(f"{shown(url)} answers with status {answer.status}.", http_status=answer.status)
        raise SourceUnreachable(f"{shown(url)} cannot be reached ({_words(problem)}).") from problem

    async def _follow(self, method: str, url: str, limit: int, accept: str, follow: bool) -> Answer:
        for _ in range(MAX_REDIRECTS + 1):
            if self._hosts is not None:
                await self._hosts.check(url)
            client = await self._client(self._hosts is None or self._hosts.verifies_tls(url))
            headers = {"Accept": accept, **await self._authorizer.headers(url)}
            async with client.stream(method, url, headers=headers) as response:
                if not (response.has_redirect_location and follow):
                    body = b"" if method == "HEAD" else await _read(response, limit, url)
                    return Answer(url, response.status_code, response.headers, body)
                url = _redirected(url, response.headers["Location"])
        raise SourceError(f"{shown(url)} redirects more than {MAX_REDIRECTS} times.")

    async def _client(self, verifies_tls: bool) -> httpx.AsyncClient:
        if verifies_tls not in self._clients:
            context = await asyncio.to_thread(_tls, self._ca_bundle, verifies_tls)
            self._clients[verifies_tls] = httpx.AsyncClient(
                verify=context, proxy=self._proxy, timeout=self._timeout, follow_redirects=False
            )
        return self._clients[verifies_tls]


def next_page(headers: Mapping[str, str], url: str) -> str | None:
    """The address that a `Link` header names as the next page."""
    for link in headers.get("link", "").split(","):
        target, _, parameters = link.partition(";")
        if 'rel="next"' in parameters.replace(" ", "") and target.strip().startswith("<"):
            return urljoin(url, target.strip().strip("<>"))
    return None


def _tls(ca_bundle: Path | None, verifies: bool) -> ssl.SSLContext:
    try:
        if ca_bundle is None:
            context = httpx.create_ssl_context()
            context.load_default_certs()
        elif ca_bundle.is_dir():
            context = ssl.create_default_context(capath=str(ca_bundle))
        else:
            context = ssl.create_default_context(cafile=str(ca_bundle))
    except (OSError, ssl.SSLError) as error:
        raise SourceError(f"The configured certificates cannot be read: {error}") from error
    if not verifies:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


async def _read(response: httpx.Response, limit: int, url: str) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > limit:
            raise SourceError(f"{shown(url)} has more than {limit} bytes.")
    return bytes(body)


def _redirected(url: str, location: str) -> str:
    target = urljoin(url, location)
    was, now = urlsplit(url), urlsplit(target)
    if now.scheme not in ("http", "https") or (was.scheme == "https" and now.scheme == "http"):
        raise SourceError(f"{shown(url)} redirects to {shown(target)}, which is not followed.")
    # A login that a server hands out is not one that was configured here.
    return now._replace(netloc=now.netloc.rpartition("@")[2]).geturl()


def _words(error: Exception | None) -> str:
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in type(error).__name__).strip()
