"""HTTP as registries speak it: checked hosts, plain bodies of bounded size, and every failure as one of our errors."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import httpx

from registry.errors import RegistryError, SourceError, SourceUnreachable, Unauthorized
from registry.sources.credentials import shown
from registry.sources.resolved import HostPolicy

DOCUMENT_SECONDS = 30.0
"""For a whole small document, however slowly it trickles."""
_CONNECT_SECONDS = 15.0
_READ_SECONDS = 60.0
_MAX_ERROR_BYTES = 64 * 1024
_RETRY_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})


class Dropped(SourceUnreachable):
    """A connection that failed or broke off, or a server that is busy; trying again may help."""


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """How registries are reached."""

    proxy: str | None = field(default=None, repr=False)
    ca_bundle: Path | None = None
    idle_timeout_seconds: float = 120.0
    document_seconds: float = DOCUMENT_SECONDS


class RegistryHttp:
    """Sends single requests; an async context manager that owns its connections. Follows no redirects."""

    def __init__(self, hosts: HostPolicy, options: HttpOptions) -> None:
        self._hosts = hosts
        self._options = options
        self._clients: dict[bool, httpx.AsyncClient] = {}
        self.document_seconds = options.document_seconds

    async def __aenter__(self) -> RegistryHttp:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in self._clients.values():
            await client.aclose()

    @contextlib.asynccontextmanager
    async def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        content: bytes | AsyncIterator[bytes] | None = None,
    ) -> AsyncIterator[httpx.Response]:
        """A response of any status, whose body is not read yet.

        Raises RegistryForbidden before anything is sent, Dropped where another try may help, or SourceError.
        """
        await self._hosts.check(url)
        client = await self._client(self._hosts.verifies_tls(url))
        # A compressed body would be longer than it looks, and its bytes are not those that have a digest.
        sent = {**headers, "Accept-Encoding": "identity"}
        with _naming(url):
            async with client.stream(method, url, headers=sent, content=content) as response:
                encoding = response.headers.get("Content-Encoding", "identity").lower()
                if encoding not in ("", "identity"):
                    raise SourceError(f"{shown(url)} sends a compressed body, which was not asked for.")
                yield response

    @contextlib.asynccontextmanager
    async def document(
        self, method: str, url: str, headers: Mapping[str, str], content: bytes | None = None
    ) -> AsyncIterator[httpx.Response]:
        """As `send`, for small things: all of it, the reading too, has to be done in a short time."""
        try:
            async with asyncio.timeout(self.document_seconds), self.send(method, url, headers, content) as response:
                yield response
        except TimeoutError:
            raise self.too_slow(url) from None

    def too_slow(self, url: str) -> SourceUnreachable:
        return SourceUnreachable(f"{shown(url)} takes more than {self.document_seconds:.0f} seconds for its answer.")

    async def read(self, response: httpx.Response, limit: int) -> bytes:
        """A small body. Raises SourceError when it has more than `limit` bytes."""
        body = bytearray()
        async for piece in response.aiter_raw():
            body += piece
            if len(body) > limit:
                raise SourceError(f"{shown(str(response.url))} has more than {limit} bytes.")
        return bytes(body)

    async def problem(self, response: httpx.Response) -> RegistryError:
        """What a response that is no success says, as an error of ours."""
        status, url = response.status_code, str(response.url)
        told = ""
        with contextlib.suppress(SourceError):
            told = told_reason(await self.read(response, _MAX_ERROR_BYTES))
        sentence = f"{shown(url)} answers with status {status}{f': {told}' if told else ''}."
        if status in (401, 403):
            return Unauthorized(sentence, http_status=status)
        if status in _RETRY_STATUSES:
            return Dropped(sentence, http_status=status)
        return SourceError(sentence, http_status=status)

    async def _client(self, verifies: bool) -> httpx.AsyncClient:
        if verifies not in self._clients:
            context = await asyncio.to_thread(_tls, self._options.ca_bundle, verifies=verifies)
            read = min(_READ_SECONDS, self._options.idle_timeout_seconds)
            connect = min(_CONNECT_SECONDS, self._options.idle_timeout_seconds)
            self._clients[verifies] = httpx.AsyncClient(
                verify=context,
                proxy=self._options.proxy,
                timeout=httpx.Timeout(connect=connect, read=read, write=read, pool=None),
                follow_redirects=False,
            )
        return self._clients[verifies]


def told_reason(body: bytes) -> str:
    """The first error that a registry's own error document names, fit for a sentence; empty when there is none."""
    try:
        document = json.loads(body)
        first = document["errors"][0]
        words = f"{first.get('message') or ''} ({first['code']})" if first.get("code") else first["message"]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return ""
    return "".join(letter for letter in str(words) if letter.isprintable()).strip()[:200]


def _tls(ca_bundle: Path | None, *, verifies: bool) -> ssl.SSLContext:
    try:
        if ca_bundle is None:
            context = httpx.create_ssl_context()
            context.load_default_certs()
        elif ca_bundle.is_dir():
            context = ssl.create_default_context(capath=str(ca_bundle))
        else:
            context = ssl.create_default_context(cafile=str(ca_bundle))
    except OSError as error:  # an SSLError is one
        raise SourceError(f"The certificates of pull.ca_bundle cannot be read: {error}") from error
    if not verifies:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


@contextlib.contextmanager
def _naming(url: str) -> Iterator[None]:
    """Turn the client's errors into ours; its own messages may quote an address with a login."""
    place = shown(url)
    try:
        yield
    except httpx.InvalidURL:
        raise SourceError(f"{place} is not an address that can be opened.") from None
    except (httpx.TransportError, httpx.StreamError) as error:
        certificate = _certificate_error(error)
        if certificate is not None:
            raise SourceUnreachable(
                f"The TLS certificate of {place} is not accepted ({certificate.verify_message}); check this machine's "
                "date, name the right certificates with pull.ca_bundle, or list the host with "
                "`puna registry add HOST --insecure`."
            ) from error
        raise Dropped(f"{place} cannot be reached ({type(error).__name__}).") from error
    except httpx.HTTPError as error:
        raise SourceError(f"{place} did not answer as HTTP should ({type(error).__name__}).") from error


def _certificate_error(error: BaseException) -> ssl.SSLCertVerificationError | None:
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLCertVerificationError):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None
