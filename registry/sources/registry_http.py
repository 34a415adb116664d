"""HTTP as registries speak it: checked hosts, plain bodies of bounded size, and every failure as one of our errors."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from types import TracebackType

import httpx

from registry.errors import RegistryError, SourceError, SourceUnreachable, Unauthorized
from registry.patience import asked_pause
from registry.sources.credentials import shown
from registry.sources.http import (
    CONNECT_SECONDS,
    RETRY_STATUSES,
    Dropped,
    HttpClient,
    HttpOptions,
    naming_errors,
)
from registry.sources.resolved import HostPolicy

DOCUMENT_SECONDS = 30.0
"""For a whole small document, however slowly it trickles."""
_MAX_ERROR_BYTES = 64 * 1024


class RegistryHttp:
    """Sends single requests; an async context manager that owns its connections. Follows no redirects."""

    def __init__(self, hosts: HostPolicy, options: HttpOptions, *, document_seconds: float = DOCUMENT_SECONDS) -> None:
        self._hosts = hosts
        self._http = HttpClient(options)
        # A registry may hash gigabytes before it answers to the last of what was sent.
        self._timeout = httpx.Timeout(options.idle_timeout_seconds, connect=CONNECT_SECONDS, pool=None)
        self.document_seconds = document_seconds

    async def __aenter__(self) -> RegistryHttp:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

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
        client = await self._http.client(self._hosts.verifies_tls(url))
        # A compressed body would be longer than it looks, and its bytes are not those that have a digest.
        sent = {**headers, "Accept-Encoding": "identity"}
        with naming_errors(url):
            async with client.stream(method, url, headers=sent, content=content, timeout=self._timeout) as response:
                encoding = response.headers.get("Content-Encoding", "identity").lower()
                if encoding not in ("", "identity"):
                    raise SourceError(f"{shown(url)} sends a compressed body, which was not asked for.")
                yield response
                await _drain(response)

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
        if status in RETRY_STATUSES:
            return Dropped(sentence, http_status=status, retry_after_seconds=asked_pause(response.headers))
        return SourceError(sentence, http_status=status)


async def _drain(response: httpx.Response) -> None:
    """Read what nobody wanted, when it is little: a connection with nothing left on it can be used again."""
    length = response.headers.get("Content-Length", "")
    if not response.is_stream_consumed and length.isdecimal() and int(length[:18]) <= _MAX_ERROR_BYTES:
        async for _ in response.aiter_raw():
            pass


def told_reason(body: bytes) -> str:
    """The first error that a registry's own error document names, fit for a sentence; empty when there is none."""
    try:
        document = json.loads(body)
        first = document["errors"][0]
        words = f"{first.get('message') or ''} ({first['code']})" if first.get("code") else first["message"]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return ""
    return "".join(letter for letter in str(words) if letter.isprintable()).strip()[:200]
