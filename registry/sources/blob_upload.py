"""One blob on its way into a registry: skipped, mounted, or sent in chunks that go on after a broken connection."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urljoin, urlsplit

import httpx

from registry.errors import ModelCorrupt, RegistryError, SourceError, SourceUnreachable, Unauthorized
from registry.manifest import Layer
from registry.patience import Patience, pause_after
from registry.sources.http import Dropped, redirected
from registry.sources.registry_client import RegistryClient

_PIECE_BYTES = 256 * 1024
_MAX_FAILURES = 8
"""In a row, without the upload having come further than ever before."""

_RANGE = re.compile(r"(?:bytes=)?0-(\d{1,18})")
_BINARY = {"Content-Type": "application/octet-stream"}
_NO_CHUNKS = frozenset({400, 404, 405, 411, 415, 501})
"""What registries answer to the first chunk that take blobs in one piece only."""


class _SessionLost(Exception):
    """The registry knows this upload no more, or is elsewhere in it; a new one can begin."""


@dataclass(frozen=True, slots=True)
class _Session:
    """An upload under way: where it goes on, and how much of the blob is there."""

    location: str
    offset: int


class BlobUpload:
    """Sends one file; `sent` tells how many of its bytes have left, which never becomes fewer."""

    def __init__(
        self,
        client: RegistryClient,
        layer: Layer,
        path: Path,
        told: Callable[[int], None],
        *,
        patience: Patience,
        chunk_bytes: int,
        mount_from: str | None = None,
    ) -> None:
        self._client = client
        self._layer = layer
        self._path = path
        self._told = told
        self._mount_from = mount_from
        self._chunk = chunk_bytes
        self._patience = patience
        self._session: _Session | None = None
        self._is_in_doubt = False
        self._farthest = 0
        """Bytes that the registry once had."""
        self._shown = 0
        self._is_whole = layer.size <= chunk_bytes

    async def run(self) -> None:
        """Have the blob at the registry. Raises Unauthorized, RegistryForbidden, SourceError or SourceUnreachable."""
        if not await self._is_there():
            await self._with_patience()
        self._show(self._layer.size)

    async def _is_there(self) -> bool:
        answer, _ = await self._client.document("HEAD", f"blobs/{self._layer.digest}", {}, 0)
        if answer.status_code == 404:
            return False
        if answer.status_code != 200:
            raise SourceError(
                f"{self._client.host} answers with status {answer.status_code} when asked for a blob.",
                http_status=answer.status_code,
            )
        length = answer.headers.get("Content-Length")
        if length is not None and length != str(self._layer.size):
            raise SourceError(
                f"{self._client.host} has {self._layer.digest} with {length} bytes; it has {self._layer.size} here."
            )
        return True

    async def _with_patience(self) -> None:
        failures = 0
        while True:
            reached = self._farthest
            try:
                await self._try()
                return
            except (Dropped, _SessionLost) as error:
                failures = failures + 1 if self._farthest == reached else 1
                if failures == 1:
                    self._patience.renew()
                if failures > _MAX_FAILURES or self._patience.is_over:
                    raise self._given_up(error) from error
                if isinstance(error, _SessionLost):
                    self._session = None
                self._is_in_doubt = True
                pause = pause_after(failures, error.asked_pause if isinstance(error, Dropped) else None)
                if pause > self._patience.seconds:
                    raise self._given_up(error) from error
                await asyncio.sleep(pause)

    async def _try(self) -> None:
        """Go on from where the upload is, or begin anew."""
        if self._session is not None and self._is_in_doubt:
            self._session = await self._ask(self._session)
        self._is_in_doubt = False
        if self._session is None:
            self._session = await self._begin()
        if self._session is None:
            return
        if self._is_whole:
            session, self._session = self._session, None  # what is sent in one piece is not taken up again
            await self._finish(session)
            return
        while self._session.offset < self._layer.size:
            self._session = await self._patch(self._session)
            self._farthest = max(self._farthest, self._session.offset)
        await self._finish(self._session)

    async def _ask(self, session: _Session) -> _Session | None:
        """Where an upload goes on; None when the registry does not know it any more."""
        async with self._client.send("GET", session.location) as answer:
            if answer.status_code in (200, 204):
                return _Session(self._next(session.location, answer), self._offset(answer, None))
            if answer.status_code in (404, 405, 416):
                return None
            raise await self._client.http.problem(answer)

    async def _begin(self) -> _Session | None:
        """Open an upload, or None when the registry took the blob from another repository."""
        digest, origin = quote(str(self._layer.digest), safe=":"), self._mount_from
        self._mount_from = None  # asked once: a registry that refuses may do so by an error
        url = self._client.url("blobs/uploads/")
        if origin:
            try:
                return await self._open(f"{url}?mount={digest}&from={quote(origin)}", may_mount=True)
            except (SourceError, Unauthorized) as error:
                if isinstance(error, Dropped):
                    raise
        return await self._open(url, may_mount=False)

    async def _open(self, url: str, *, may_mount: bool) -> _Session | None:
        async with self._client.send("POST", url, {"Content-Length": "0"}) as answer:
            if answer.status_code == 201 and may_mount:
                return None
            if answer.status_code == 202:
                self._heed(answer.headers.get("OCI-Chunk-Min-Length", ""))
                return _Session(self._next(url, answer), 0)
            raise await self._client.http.problem(answer)

    def _heed(self, least: str) -> None:
        """Send chunks of the size that the registry wants at least."""
        if least.isdecimal() and len(least) < 19 and int(least) > self._chunk:
            self._chunk = int(least)
            self._is_whole = self._layer.size <= self._chunk

    async def _patch(self, session: _Session) -> _Session:
        start, end = session.offset, min(session.offset + self._chunk, self._layer.size)
        headers = {**_BINARY, "Content-Length": str(end - start), "Content-Range": f"{start}-{end - 1}"}
        async with self._client.send("PATCH", session.location, headers, lambda: self._pieces(start, end)) as answer:
            status = answer.status_code
            if status in (202, 204):
                return _Session(self._next(session.location, answer), self._offset(answer, end))
            if status in _NO_CHUNKS and not self._farthest:
                self._is_whole = True
                raise _SessionLost
            if status in (404, 416):
                raise _SessionLost
            raise await self._client.http.problem(answer)

    async def _finish(self, session: _Session) -> None:
        """Close the upload, with the bytes that were not sent before."""
        start, size = session.offset, self._layer.size
        query = "&" if urlsplit(session.location).query else "?"
        url = f"{session.location}{query}digest={quote(str(self._layer.digest), safe=':')}"
        headers = {**_BINARY, "Content-Length": str(size - start)}
        async with self._client.send("PUT", url, headers, lambda: self._pieces(start, size)) as answer:
            if answer.status_code in (201, 204):
                return
            if answer.status_code in (404, 416):
                raise _SessionLost
            raise await self._client.http.problem(answer)

    def _offset(self, answer: httpx.Response, expected: int | None) -> int:
        """How many bytes the registry has. Raises SourceError for an impossible number."""
        match = _RANGE.fullmatch(answer.headers.get("Range", ""))
        if match is None:
            if expected is None:
                raise _SessionLost
            return expected
        # "0-0" is one byte by the letter, and none at all in the registries there are.
        offset = int(match[1]) + 1 if int(match[1]) else 0
        if offset > (self._layer.size if expected is None else expected):
            raise SourceError(f"{self._client.host} tells of {offset} bytes of an upload, which were not sent.")
        return offset

    def _next(self, url: str, answer: httpx.Response) -> str:
        location = answer.headers.get("Docker-Upload-Location") or answer.headers.get("Location")
        if not location:
            raise SourceError(f"{self._client.host} does not say where an upload goes on.")
        return redirected(url, urljoin(url, location))

    async def _pieces(self, start: int, end: int) -> AsyncIterator[bytes]:
        position = start
        with await asyncio.to_thread(self._path.open, "rb") as file:
            await asyncio.to_thread(file.seek, start)
            while position < end:
                piece = await asyncio.to_thread(file.read, min(_PIECE_BYTES, end - position))
                if not piece:
                    raise ModelCorrupt(
                        f"The file of {self._layer.digest} ends before its end.", digest=str(self._layer.digest)
                    )
                yield piece
                position += len(piece)
                self._show(position)

    def _show(self, sent: int) -> None:
        if sent > self._shown:
            self._shown = sent
            self._told(sent)

    def _given_up(self, error: Exception) -> RegistryError:
        if isinstance(error, Dropped):
            return SourceUnreachable(error.message, **error.facts)
        return SourceError(
            f"{self._client.host} loses track of what is sent to it; it was tried {_MAX_FAILURES} times."
        )
