"""One file's way from an address into its partial, however it is asked for: what may be mixed, and what is written."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx

from registry.errors import RegistryError, SourceError, SourceUnreachable
from registry.partial import Partial
from registry.patience import Patience
from registry.progress import Notice
from registry.sizes import shown_size
from registry.sources.credentials import shown
from registry.sources.file_version import version_of
from registry.sources.http import READ_BYTES, Dropped, HttpClient, is_same_host
from registry.sources.resolved import HttpFile
from registry.uninterrupted import uninterrupted_in

_PIECE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Window:
    """The part of a remote file that is wanted, when it is not the whole."""

    offset: int
    total: int
    """The remote file's own size."""


@dataclass(frozen=True, slots=True)
class TransferOptions:
    parallel: int = 8
    idle_timeout_seconds: float = 120.0
    piece_bytes: int = 1 << 20
    """Written, and noted in the journal, at once; so much a kill takes from each connection, at most."""


class FileChanged(RegistryError):
    """The file at the address is another one than was begun."""

    def __init__(self, total: int | None, version: str | None) -> None:
        super().__init__("changed")
        self.total = total
        self.version = version


class Transfer:
    """Owns what is known of the file at the address, and since when nothing has come of it."""

    def __init__(
        self,
        http: HttpClient,
        place: HttpFile,
        partial: Partial,
        options: TransferOptions,
        notice: Notice,
        *,
        is_digest_known: bool,
        check_room: Callable[[int], None],
        window: Window | None = None,
    ) -> None:
        self.place = place
        self.partial = partial
        self.options = options
        self.notice = notice
        self.is_digest_known = is_digest_known
        self.check_room = check_room
        self.window = window
        self.patience = Patience(options.idle_timeout_seconds)
        self.has_answered = False
        """Something of the file, as it is now, has come."""
        self.last_error: Dropped | None = None
        self._http = http
        # One after the other, as the system would have it anyway; so a slow disk keeps no other work waiting.
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="download")

    def close(self) -> None:
        """Nothing is written any more."""
        self._writer.shutdown(wait=False)

    @property
    def label(self) -> str:
        return shown(self.place.url)

    @property
    def offset(self) -> int:
        """Where in the remote file the wanted part begins."""
        return self.window.offset if self.window else 0

    @contextlib.asynccontextmanager
    async def open(self, url: str, byte_range: str | None) -> AsyncIterator[httpx.Response]:
        """Ask for the file, or a range of it, at its address or where that has led. Raises as HttpClient.open."""
        # A compressed transfer would make byte positions meaningless.
        headers = {"Accept-Encoding": "identity"}
        if byte_range is not None:
            headers["Range"] = byte_range
        place = self.place
        authorizer = place.authorizer if is_same_host(place.url, url) else None
        async with self._http.open(url, headers, authorizer=authorizer, hosts=place.hosts) as response:
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise SourceError(f"{self.label} sends a compressed transfer that was not asked for.")
            yield response

    async def write(self, offset: int, piece: memoryview, version: str | None) -> None:
        """Write bytes of that version into the partial, in a thread. Raises DiskFull or StoreReadOnly."""
        await uninterrupted_in(self._writer, self.partial.write, offset, piece, version)

    def check_same(self, response: httpx.Response, total: int | None) -> None:
        """Raises FileChanged, or SourceError when the file cannot be the one that is wanted."""
        partial, version = self.partial, version_of(response.headers)
        expected = self.window.total if self.window else partial.size
        is_other_size = total is not None and expected is not None and total != expected
        if self.is_digest_known:
            if is_other_size:
                raise SourceError(f"{self.label} has {total} bytes; {expected} are expected.")
            # Another version is noted, not refused: servers that share their work name one file differently,
            # and in the end the digest tells.
            if version is not None:
                partial.begin_version(version)
            return
        is_other = is_other_size or (partial.completed > 0 and version != partial.version)
        if is_other and self.window is not None:
            # Where the wanted part lies in another version, nobody knows.
            raise SourceError(f"{self.label} has changed while it was downloaded.")
        if is_other and (self.has_answered or partial.completed > 0):
            raise FileChanged(total, version)
        if version is not None:
            partial.begin_version(version)

    def learn_size(self, total: int) -> None:
        """What the server says, when nothing was known. Raises DiskFull."""
        self.check_room(total - self.partial.completed)
        self.partial.set_size(total)

    def start_over(self, change: FileChanged) -> None:
        """Nothing of one version is mixed with another."""
        if self.partial.version is not None:
            self.notice(f"{self.label} has changed since it was begun: starting over")
        self.partial.drop_all()
        if change.total is not None:
            self.partial.set_size(change.total)
        self.partial.begin_version(change.version)

    def kept(self) -> str:
        """What is here, as people are told of it."""
        size = self.partial.size
        done = shown_size(self.partial.completed)
        return done if size is None else f"{done} of {shown_size(size)}"

    def unreachable(self) -> SourceUnreachable:
        """The error for a place of which nothing has come for too long."""
        error = self.last_error
        reason = error.message if error is not None else f"{self.label} sends nothing."
        return SourceUnreachable(
            f"{reason} Nothing new has come for {self.patience.waited:.0f} s; {self.kept()} kept, "
            "pull again to go on from there.",
            **(error.facts if error is not None else {}),
        )


class Held:
    """Bytes of one connection that have come and are not written yet: about a piece at most, and not for long."""

    def __init__(self, transfer: Transfer, position: int, version: str | None) -> None:
        self._transfer = transfer
        self._version = version
        # Used again and again: fresh memory costs as much as the copying does.
        self._buffer = bytearray(transfer.options.piece_bytes + READ_BYTES)
        self._count = 0
        self._at = position
        self._since = time.monotonic()

    def __len__(self) -> int:
        return self._count

    @property
    def is_due(self) -> bool:
        is_long_ago = time.monotonic() - self._since >= _PIECE_SECONDS
        return is_long_ago or self._count >= self._transfer.options.piece_bytes

    async def add(self, position: int, chunk: bytes) -> None:
        """Take bytes, which need not follow the last ones."""
        for start in range(0, len(chunk), READ_BYTES):
            piece = chunk[start : start + READ_BYTES]
            if position + start != self._at + self._count or self._count + len(piece) > len(self._buffer):
                await self.write()
                self._at = position + start
            self._buffer[self._count : self._count + len(piece)] = piece
            self._count += len(piece)

    async def write(self) -> None:
        """Write what is held, in a thread."""
        at, piece = self._take()
        if piece:
            await self._transfer.write(at, piece, self._version)

    def write_rest(self) -> None:
        """Write what is left, whatever ended the connection; nothing that came is lost."""
        at, piece = self._take()
        self._transfer.partial.write(at, piece, self._version)

    def _take(self) -> tuple[int, memoryview]:
        """What is held and where it belongs; to be written before anything is added."""
        at, count = self._at, self._count
        self._at, self._count, self._since = at + count, 0, time.monotonic()
        return at, memoryview(self._buffer)[:count]
