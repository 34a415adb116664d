"""HTTP as sources need it: logins for their own host only, redirects by hand, bodies of bounded size."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from urllib.parse import SplitResult, urljoin, urlsplit

import httpcore
import httpx

from registry.errors import SourceError, SourceUnreachable, Unauthorized
from registry.patience import asked_pause, pause_after
from registry.sources.credentials import shown
from registry.sources.resolved import Authorizer, HostPolicy

MAX_REDIRECTS = 10
PAGE_ATTEMPTS = 3
CONNECT_SECONDS = 15.0
_READ_SECONDS = 20.0
READ_BYTES = 256 * 1024
"""The most that a connection gives at once: as much as an event loop reads, so that nothing is cut up and copied."""
RETRY_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})


httpcore.AsyncHTTP11Connection.READ_NUM_BYTES = READ_BYTES


class Dropped(SourceError):
    """A connection that failed or broke off; trying again may help."""

    code = "registry_unreachable"

    @property
    def asked_pause(self) -> float | None:
        """Seconds that the server asks to wait."""
        seconds = self.facts.get("retry_after_seconds")
        return seconds if isinstance(seconds, float) else None


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """How hosts are reached."""

    idle_timeout_seconds: float = 120.0
    proxy: str | None = field(default=None, repr=False)
    ca_bundle: Path | None = None
    client_certificate: Path | None = None


class HttpClient:
    """Opens responses; an async context manager that owns its connections, of which there may be many at once."""

    def __init__(self, options: HttpOptions) -> None:
        self._options = options
        self._timeout = httpx.Timeout(
            connect=min(CONNECT_SECONDS, options.idle_timeout_seconds),
            read=min(_READ_SECONDS, options.idle_timeout_seconds),
            write=CONNECT_SECONDS,
            pool=None,
        )
        self._clients: dict[bool, httpx.AsyncClient] = {}
        self._making = asyncio.Lock()

    async def __aenter__(self) -> HttpClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        for client in self._clients.values():
            await client.aclose()

    @contextlib.asynccontextmanager
    async def open(
        self,
        url: str,
        headers: Mapping[str, str],
        *,
        authorizer: Authorizer | None = None,
        hosts: HostPolicy | None = None,
        method: str = "GET",
    ) -> AsyncIterator[httpx.Response]:
        """A response whose body is not read yet, after redirects; `url` of the response is where they led.

        The login is asked of `authorizer`, and goes to the host of `url` alone; `hosts` is asked about
        every address. Raises Dropped where another try may help, Unauthorized for 401 and 403,
        RegistryForbidden for an address that may not be asked, SourceError for every other answer than
        a success.
        """
        first, was_refused = url, False
        redirects = 0
        with naming_errors(url):
            while True:
                if hosts is not None:
                    await hosts.check(url)
                asker = authorizer if is_same_host(first, url) else None
                login = await asker.headers(url) if asker is not None else {}
                client = await self.client(hosts is None or hosts.verifies_tls(url))
                async with client.stream(method, url, headers={**headers, **login}) as response:
                    if response.has_redirect_location:
                        url, redirects = redirected(url, response.headers["Location"]), redirects + 1
                        if redirects > MAX_REDIRECTS:
                            break
                        continue
                    if response.status_code in (401, 403) and asker is not None and not was_refused:
                        was_refused = True
                        if await asker.refused(url, response.status_code, response.headers):
                            continue
                    _check_status(response, url)
                    yield response
                    return
        raise SourceError(f"{shown(url)} redirects more than {MAX_REDIRECTS} times.")

    async def page(
        self,
        url: str,
        accept: str,
        limit: int,
        *,
        authorizer: Authorizer | None = None,
        hosts: HostPolicy | None = None,
    ) -> tuple[str, str, bytes]:
        """A whole document: its final address, content type and body. Raises as `open`, but SourceUnreachable
        where several tries were in vain."""
        for attempt in range(1, PAGE_ATTEMPTS + 1):
            try:
                async with self.open(url, {"Accept": accept}, authorizer=authorizer, hosts=hosts) as response:
                    body = bytearray()
                    async for chunk in response.aiter_bytes():
                        body += chunk
                        if len(body) > limit:
                            raise SourceError(f"{shown(url)} has more than {limit} bytes.")
                    return str(response.url), response.headers.get("Content-Type", ""), bytes(body)
            except Dropped as error:
                last = error
                if attempt < PAGE_ATTEMPTS:
                    pause = pause_after(attempt + 1, error.asked_pause)
                    if pause > self._options.idle_timeout_seconds:
                        break
                    await asyncio.sleep(pause)
        raise SourceUnreachable(last.message, **last.facts) from last

    async def client(self, verifies: bool) -> httpx.AsyncClient:
        """The connections of those hosts whose certificates have to be right, or of the others. Raises SourceError."""
        async with self._making:
            if verifies not in self._clients:
                context = await asyncio.to_thread(self._tls, verifies)
                self._clients[verifies] = httpx.AsyncClient(
                    verify=context,
                    proxy=self._options.proxy,
                    timeout=self._timeout,
                    limits=httpx.Limits(max_connections=None),
                    follow_redirects=False,
                )
        return self._clients[verifies]

    def _tls(self, verifies: bool) -> ssl.SSLContext:
        options = self._options
        try:
            if options.ca_bundle is None:
                context = httpx.create_ssl_context()
                context.load_default_certs()
            else:
                context = _context_of(options.ca_bundle)
            if options.client_certificate is not None:
                context.load_cert_chain(options.client_certificate)
        except (OSError, ssl.SSLError) as error:
            raise SourceError(f"The certificates configured for downloads cannot be read: {error}") from error
        if not verifies:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def is_same_host(first: str, second: str) -> bool:
    """Whether a login for the one address may go to the other: the same server, and no less protected."""
    was, now = urlsplit(first), urlsplit(second)
    if was.hostname != now.hostname:
        return False
    is_upgrade = was.scheme == "http" and now.scheme == "https" and _is_usual_port(was) and _is_usual_port(now)
    return is_upgrade or (was.scheme == now.scheme and _port(was) == _port(now))


def _port(parts: SplitResult) -> int | None:
    return parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _is_usual_port(parts: SplitResult) -> bool:
    return _port(parts) == {"http": 80, "https": 443}[parts.scheme]


def _context_of(bundle: Path) -> ssl.SSLContext:
    if bundle.is_dir():
        return ssl.create_default_context(capath=str(bundle))
    return ssl.create_default_context(cafile=str(bundle))


@contextlib.contextmanager
def naming_errors(url: str) -> Iterator[None]:
    """Turn the client's errors into ours; its own messages may quote an address with a login."""
    place = shown(url)
    try:
        yield
    except httpx.InvalidURL:
        raise SourceError(f"{place} is not an address that can be opened.") from None
    except httpx.ProxyError as error:
        raise _proxy_error(place, str(error)) from error
    except (httpx.TransportError, httpx.StreamError) as error:
        certificate = _certificate_error(error)
        if certificate is not None:
            raise SourceError(
                f"The TLS certificate of {place} is not accepted ({certificate.verify_message}); check this machine's "
                "date, or name the right certificates with PUNA_PULL_CA_BUNDLE or SSL_CERT_FILE."
            ) from error
        raise Dropped(f"{place} cannot be reached ({_reason(error)}).") from error
    except httpx.HTTPError as error:
        raise SourceError(f"{place} did not answer as HTTP should ({_reason(error)}).") from error


def _proxy_error(place: str, answer: str) -> SourceError:
    """What a proxy's refusal means; `answer` begins with its status, where it gave one."""
    status = int(answer[:3]) if answer[:3].isdecimal() else None
    if status == 407:
        return SourceError(
            f"The proxy on the way to {place} wants a login (status 407); put it into PUNA_PULL_PROXY.",
            http_status=status,
        )
    if status is not None and 400 <= status < 500 and status not in RETRY_STATUSES:
        return SourceError(
            f"The proxy on the way to {place} refuses to go there (status {status}); ask those who run it, or name "
            "another one with PUNA_PULL_PROXY.",
            http_status=status,
        )
    return Dropped(f"{place} cannot be reached through the proxy.", http_status=status)


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
    if status in (401, 403):
        raise Unauthorized(f"{shown(url)} refuses access (status {status}).", http_status=status)
    if status == 407:
        raise _proxy_error(shown(url), "407")
    if status in RETRY_STATUSES:
        pause = asked_pause(response.headers)
        raise Dropped(f"{shown(url)} answers with status {status}.", http_status=status, retry_after_seconds=pause)
    raise SourceError(f"{shown(url)} answers with status {status}.", http_status=status)


def redirected(url: str, location: str) -> str:
    """Where a redirect leads. Raises SourceError for one from https to http, or to no web address."""
    try:
        target = urljoin(url, location)
        was, now = urlsplit(url), urlsplit(target)
    except ValueError:
        raise SourceError(f"{shown(url)} redirects to an address that cannot be read.") from None
    if now.scheme not in ("http", "https") or (was.scheme == "https" and now.scheme == "http"):
        raise SourceError(f"{shown(url)} redirects to {shown(target)}, which is not followed.")
    # A login that a server hands out is not one that was configured here.
    return now._replace(netloc=now.netloc.rpartition("@")[2]).geturl()
