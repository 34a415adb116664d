"""HTTP as sources need it: logins for their own host only, redirects by hand, bodies of bounded size."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from urllib.parse import urljoin, urlsplit

import httpx

from registry.errors import SourceError, SourceUnreachable
from registry.sources.credentials import shown
from registry.sources.index_settings import IndexSettings

MAX_REDIRECTS = 10
PAGE_ATTEMPTS = 3
_CONNECT_SECONDS = 15.0
_READ_SECONDS = 20.0
_RETRY_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})


class Dropped(SourceError):
    """A connection that failed or broke off; trying again may help."""

    code = "registry_unreachable"


class HttpClient:
    """Opens responses; an async context manager that owns its connections."""

    def __init__(
        self, settings: IndexSettings, *, proxy: str | None, ca_bundle: Path | None, idle_timeout_seconds: float
    ) -> None:
        self._settings = settings
        self._proxy = proxy or settings.proxy
        self._ca_bundle = ca_bundle or settings.ca_bundle
        self._timeout = httpx.Timeout(
            connect=min(_CONNECT_SECONDS, idle_timeout_seconds),
            read=min(_READ_SECONDS, idle_timeout_seconds),
            write=_CONNECT_SECONDS,
            pool=None,
        )
        self._clients: dict[bool, httpx.AsyncClient] = {}

    async def __aenter__(self) -> HttpClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in self._clients.values():
            await client.aclose()

    @contextlib.asynccontextmanager
    async def open(self, url: str, headers: Mapping[str, str]) -> AsyncIterator[httpx.Response]:
        """A response whose body is not read yet, after redirects.

        Raises Dropped where another try may help, SourceError for every other answer than a success.
        """
        with _naming(url):
            for _ in range(MAX_REDIRECTS + 1):
                client = await self._client(url)
                async with client.stream("GET", url, headers=self._headers(url, headers)) as response:
                    if not response.has_redirect_location:
                        _check_status(response, url)
                        yield response
                        return
                    url = _redirected(url, response)
        raise SourceError(f"{shown(url)} redirects more than {MAX_REDIRECTS} times.")

    async def page(self, url: str, accept: str, limit: int) -> tuple[str, str, bytes]:
        """A whole document: its final address, content type and body. Raises SourceError or SourceUnreachable."""
        for attempt in range(PAGE_ATTEMPTS):
            if attempt:
                await asyncio.sleep(0.3 * attempt)
            try:
                async with self.open(url, {"Accept": accept}) as response:
                    body = bytearray()
                    async for chunk in response.aiter_bytes():
                        body += chunk
                        if len(body) > limit:
                            raise SourceError(f"{shown(url)} has more than {limit} bytes.")
                    return str(response.url), response.headers.get("Content-Type", ""), bytes(body)
            except Dropped as error:
                last = error
        raise SourceUnreachable(last.message) from last

    def _headers(self, url: str, headers: Mapping[str, str]) -> dict[str, str]:
        login = self._settings.credentials.find(url)
        return {**headers, "Authorization": login.header} if login else dict(headers)

    async def _client(self, url: str) -> httpx.AsyncClient:
        parts = urlsplit(url)
        trusted = self._settings.trusted_hosts
        is_trusted = parts.hostname in trusted or parts.netloc.rpartition("@")[2] in trusted
        if is_trusted not in self._clients:
            context = await asyncio.to_thread(self._tls, is_trusted)
            self._clients[is_trusted] = httpx.AsyncClient(
                verify=context, proxy=self._proxy, timeout=self._timeout, follow_redirects=False
            )
        return self._clients[is_trusted]

    def _tls(self, is_trusted: bool) -> ssl.SSLContext:
        try:
            if self._ca_bundle is None:
                context = httpx.create_ssl_context()
                context.load_default_certs()
            else:
                context = _context_of(self._ca_bundle)
            if self._settings.client_certificate is not None:
                context.load_cert_chain(self._settings.client_certificate)
        except (OSError, ssl.SSLError) as error:
            raise SourceError(f"The certificates configured for package indexes cannot be read: {error}") from error
        if is_trusted:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def _context_of(bundle: Path) -> ssl.SSLContext:
    if bundle.is_dir():
        return ssl.create_default_context(capath=str(bundle))
    return ssl.create_default_context(cafile=str(bundle))


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
            raise SourceError(
                f"The TLS certificate of {place} is not accepted ({certificate.verify_message}); check this machine's "
                "date, or name the right certificates with PIP_CERT or SSL_CERT_FILE."
            ) from error
        raise Dropped(f"{place} cannot be reached ({_reason(error)}).") from error
    except httpx.HTTPError as error:
        raise SourceError(f"{place} did not answer as HTTP should ({_reason(error)}).") from error


def _certificate_error(error: BaseException) -> ssl.SSLCertVerificationError | None:
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLCertVerificationError):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None


def _reason(error: Exception) -> str:
    words = "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in type(error).__name__)
    return words.strip()


def _check_status(response: httpx.Response, url: str) -> None:
    status = response.status_code
    if status in (200, 206):
        return
    if status in (401, 403, 407):
        raise SourceError(
            f"{shown(url)} refuses access (status {status}); put the login into pip's or uv's index settings "
            "or into the netrc file.",
            http_status=status,
        )
    if status in _RETRY_STATUSES:
        raise Dropped(f"{shown(url)} answers with status {status}.", http_status=status)
    raise SourceError(f"{shown(url)} answers with status {status}.", http_status=status)


def _redirected(url: str, response: httpx.Response) -> str:
    target = urljoin(url, response.headers["Location"])
    was, now = urlsplit(url), urlsplit(target)
    if now.scheme not in ("http", "https") or (was.scheme == "https" and now.scheme == "http"):
        raise SourceError(f"{shown(url)} redirects to {shown(target)}, which is not followed.")
    if now.username is not None:
        # A login that a server hands out is not one that was configured here.
        target = now._replace(netloc=now.netloc.rpartition("@")[2]).geturl()
    return target
