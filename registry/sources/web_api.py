"""Small documents from web APIs: whole, of bounded size, with the status and headers they came with."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from types import TracebackType

import httpx

from registry.errors import SourceError, SourceUnreachable
from registry.sources.credentials import shown
from registry.sources.http import RETRY_STATUSES, Dropped, HttpOptions, redirected
from registry.sources.registry_http import DOCUMENT_SECONDS, RegistryHttp
from registry.sources.resolved import Authorizer, HostPolicy

MAX_REDIRECTS = 5
ATTEMPTS = 3
_PAUSE_SECONDS = 0.3


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
    """Asks one service, with the login that is its own; an async context manager that owns its connections.

    Every method raises SourceUnreachable when nothing answers in time, SourceError for what is too long or leads
    astray, RegistryForbidden for a host that may not be asked.
    """

    def __init__(
        self,
        authorizer: Authorizer | None,
        hosts: HostPolicy,
        options: HttpOptions,
        *,
        attempts: int = ATTEMPTS,
        document_seconds: float = DOCUMENT_SECONDS,
    ) -> None:
        """`document_seconds` is for one try, however slowly an answer trickles."""
        self._authorizer = authorizer
        self._http = RegistryHttp(hosts, options, document_seconds=document_seconds)
        self._attempts = attempts

    async def __aenter__(self) -> WebApi:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.__aexit__(kind, error, trace)

    async def get(self, url: str, *, limit: int, accept: str = "application/json") -> Answer:
        """A document of at most `limit` bytes, after redirects."""
        return await self._patiently("GET", url, limit, accept, follow=True)

    async def head(self, url: str, *, follow: bool = True) -> Answer:
        """The status and headers of a document."""
        return await self._patiently("HEAD", url, 0, "*/*", follow=follow)

    async def _patiently(self, method: str, url: str, limit: int, accept: str, *, follow: bool) -> Answer:
        for attempt in range(1, self._attempts + 1):
            try:
                async with asyncio.timeout(self._http.document_seconds):
                    answer = await self._ask(method, url, limit, accept, follow=follow)
            except Dropped as error:
                problem: SourceError = error
            except TimeoutError:
                raise self._http.too_slow(url) from None
            else:
                if answer.status not in RETRY_STATUSES:
                    return answer
                problem = Dropped(f"{shown(url)} answers with status {answer.status}.", http_status=answer.status)
            if attempt < self._attempts:
                await asyncio.sleep(_PAUSE_SECONDS * attempt)
        raise SourceUnreachable(problem.message, **problem.facts) from problem

    async def _ask(self, method: str, url: str, limit: int, accept: str, *, follow: bool) -> Answer:
        for _ in range(MAX_REDIRECTS + 1):
            login = await self._authorizer.headers(url) if self._authorizer is not None else {}
            async with self._http.send(method, url, {"Accept": accept, **login}) as response:
                if not (response.has_redirect_location and follow):
                    body = b"" if method == "HEAD" else await self._http.read(response, limit)
                    return Answer(url, response.status_code, response.headers, body)
                url = redirected(url, response.headers["Location"])
        raise SourceError(f"{shown(url)} redirects more than {MAX_REDIRECTS} times.")
