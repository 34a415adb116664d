"""One file as a range of bytes, on this machine or over HTTP, where a broken connection is taken up again."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from pathlib import Path
from typing import Protocol

import httpx

from registry.blobs import PIECE_BYTES
from registry.errors import SourceError, SourceUnreachable
from registry.patience import Patience, pause_after
from registry.progress import Notice
from registry.sources.credentials import shown
from registry.sources.file_version import version_of
from registry.sources.http import Dropped, HttpClient
from registry.sources.resolved import HttpFile

_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")
_FIRST_CONTACT_SECONDS = 15.0


class RandomAccessFile(Protocol):
    """A file that can be read from the middle, if its server is willing."""

    @property
    def label(self) -> str: ...

    async def tail(self, count: int) -> tuple[int, bytes] | None:
        """The file's size and its last bytes, or None where only reading from the start is possible."""

    def stream(self, start: int, end: int | None = None) -> AsyncIterator[bytes]:
        """The bytes from `start` to `end`, or to the file's end."""


class LocalFile:
    """A file of this machine."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def label(self) -> str:
        return self._path.name

    async def tail(self, count: int) -> tuple[int, bytes] | None:
        def read() -> tuple[int, bytes]:
            size = self._path.stat().st_size
            with self._path.open("rb") as file:
                file.seek(max(0, size - count))
                return size, file.read(count)

        try:
            return await asyncio.to_thread(read)
        except OSError as error:
            raise SourceUnreachable(f"{self.label} cannot be read: {error.strerror}.") from error

    async def stream(self, start: int, end: int | None = None) -> AsyncIterator[bytes]:
        def read(position: int) -> bytes:
            with self._path.open("rb") as file:
                file.seek(position)
                return file.read(PIECE_BYTES if end is None else min(PIECE_BYTES, end - position))

        position = start
        while end is None or position < end:
            try:
                piece = await asyncio.to_thread(read, position)
            except OSError as error:
                raise SourceUnreachable(f"{self.label} cannot be read: {error.strerror}.") from error
            if not piece:
                break
            position += len(piece)
            yield piece


class RemoteFile:
    """A file behind an address. Redirects are followed anew for each connection, so that signed ones stay fresh."""

    def __init__(self, http: HttpClient, place: HttpFile, idle_timeout_seconds: float, notice: Notice) -> None:
        self._http = http
        self._place = place
        self._idle_timeout = idle_timeout_seconds
        self._notice = notice
        self._size: int | None = None
        self._tag: str | None = None
        self._has_ranges = True
        self.version: str | None = None
        """What the server called the file's state when its end was read."""

    @property
    def label(self) -> str:
        return shown(self._place.url)

    async def tail(self, count: int) -> tuple[int, bytes] | None:
        tries = _Tries(min(self._idle_timeout, _FIRST_CONTACT_SECONDS))
        while True:
            try:
                return await self._try_tail(count)
            except Dropped as error:
                await tries.wait(error)
            except SourceError as error:
                # Servers that know no ranges from the end answer so; from the start they may well.
                if error.facts.get("http_status") not in (400, 416, 501):
                    raise
                self._has_ranges = False
                return None

    async def stream(self, start: int, end: int | None = None) -> AsyncIterator[bytes]:
        """Gives up with SourceUnreachable when nothing new has come for the idle timeout."""
        position = start
        tries = _Tries(self._idle_timeout)
        while True:
            try:
                async with contextlib.aclosing(self._connection(position, end)) as connection:
                    async for chunk in connection:
                        position += len(chunk)
                        yield chunk
                        tries.renew()
                if end is None or position >= end:
                    return
                raise Dropped(f"{self.label} ends at byte {position} of {end}.")
            except Dropped as error:
                if position > start and tries.is_fresh:
                    self._notice(f"connection lost, resuming at {position / 1e6:.1f} MB")
                await tries.wait(error)

    async def _try_tail(self, count: int) -> tuple[int, bytes] | None:
        async with self._open(_range_header(f"-{count}")) as response:
            if response.status_code == 200:
                self._has_ranges = False
                return None
            first, last, size = self._read_range(response)
            if last != size - 1 or last - first >= count:
                raise SourceError(f"{self.label} answers with another range than was asked for.")
            self._size, self._tag, self.version = size, _strong_tag(response), version_of(response.headers)
            content = bytearray()
            async for chunk in _body(response, self.label):
                content += chunk
                if len(content) > count:
                    raise SourceError(f"{self.label} sends more bytes than it announced.")
            if len(content) != last - first + 1:
                raise Dropped(f"{self.label} broke off.")
            return size, bytes(content)

    async def _connection(self, position: int, end: int | None) -> AsyncGenerator[bytes]:
        headers = _range_header(f"{position}-{end - 1 if end is not None else ''}") if self._has_ranges else {}
        if self._has_ranges and self._tag is not None:
            headers["If-Range"] = self._tag
        async with self._open(headers or _range_header(None)) as response:
            to_skip = position
            if response.status_code == 206:
                if not self._has_ranges or self._read_range(response)[0] != position:
                    raise SourceError(f"{self.label} answers with another range than was asked for.")
                to_skip = 0
            else:
                self._check_same_file(response)
            async for chunk in _body(response, self.label):
                if to_skip >= len(chunk):
                    to_skip -= len(chunk)
                    continue
                chunk, to_skip = chunk[to_skip:], 0
                if end is not None and position + len(chunk) >= end:
                    yield chunk[: end - position]
                    return
                position += len(chunk)
                yield chunk

    def _open(self, headers: Mapping[str, str]) -> contextlib.AbstractAsyncContextManager[httpx.Response]:
        place = self._place
        return self._http.open(place.url, headers, authorizer=place.authorizer, hosts=place.hosts)

    def _read_range(self, response: httpx.Response) -> tuple[int, int, int]:
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if match is None:
            raise SourceError(f"{self.label} sends a part without saying which.")
        first, last, size = (int(one) for one in match.groups())
        if not first <= last < size:
            raise SourceError(f"{self.label} sends an impossible range.")
        if self._size not in (None, size):
            raise SourceError(f"{self.label} has changed while it was downloaded.")
        return first, last, size

    def _check_same_file(self, response: httpx.Response) -> None:
        """A whole file where a part was asked for: it changed, or the server has stopped giving parts."""
        self._has_ranges = False
        tag, length = _strong_tag(response), response.headers.get("Content-Length", "")
        size = int(length) if length.isdecimal() and len(length) < 19 else None
        if (self._tag and tag and tag != self._tag) or (self._size and size and size != self._size):
            raise SourceError(f"{self.label} has changed while it was downloaded.")
        self._size, self._tag = self._size or size, self._tag or tag


class _Tries:
    """Pauses between tries, growing while nothing comes; gives up when the time without progress is over."""

    def __init__(self, seconds: float) -> None:
        self._patience = Patience(seconds)
        self._failures = 0

    @property
    def is_fresh(self) -> bool:
        """Nothing has failed since the last progress."""
        return self._failures == 0

    def renew(self) -> None:
        self._patience.renew()
        self._failures = 0

    async def wait(self, error: Dropped) -> None:
        """Pause before the next try, or raise SourceUnreachable."""
        self._failures += 1
        pause = pause_after(self._failures, error.asked_pause)
        if self._patience.waited + pause > self._patience.seconds:
            raise SourceUnreachable(error.message, **error.facts) from error
        await asyncio.sleep(pause)


def _range_header(spec: str | None) -> dict[str, str]:
    # A compressed transfer would make byte positions meaningless.
    headers = {"Accept-Encoding": "identity"}
    return headers if spec is None else {**headers, "Range": f"bytes={spec}"}


async def _body(response: httpx.Response, label: str) -> AsyncIterator[bytes]:
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise SourceError(f"{label} sends a compressed transfer that was not asked for.")
    async for chunk in response.aiter_raw():
        if chunk:
            yield chunk


def _strong_tag(response: httpx.Response) -> str | None:
    tag: str | None = response.headers.get("ETag")
    return tag if tag and tag.startswith('"') else None
