"""One file on its way into the store: from the first place that has it, verified, under its final name at last."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, Mapping
from typing import NoReturn

from filelock import BaseFileLock

from registry.blobs import Blob
from registry.byte_ranges import Range
from registry.errors import DigestMismatch, RegistryForbidden, SourceError, Unauthorized
from registry.fetched_addresses import FetchedFile
from registry.fetching import Fetcher
from registry.following import along
from registry.journal import FileFacts
from registry.partial import Partial
from registry.partial_hash import PartialHash
from registry.place_names import label_of, partial_key
from registry.progress import Progress
from registry.pull_options import OpenHttp, PullOptions
from registry.seeding import seed
from registry.sources.resolved import HttpFile, Place, ResolvedFile
from registry.store import ModelStore
from registry.uninterrupted import uninterrupted

_REPORT_SECONDS = 0.1
_LOCK_POLL_SECONDS = 0.2
_FLUSH_POLL_SECONDS = 0.05

_MAX_DOUBTS = 2

_OTHER_PLACE_MAY_HELP = (SourceError, DigestMismatch, Unauthorized, RegistryForbidden)


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
        self._fetcher: Fetcher | None = None
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
        if self._partial is not None and self._fetcher is not None:
            self._completed = max(self._completed, self._fetcher.completed)
            self._size = self._partial.size if self._size is None else self._size

    async def _run(self) -> Blob:
        lock = await self._acquire()
        try:
            # Whoever had the lock before may have finished the file.
            found = await asyncio.to_thread(self._find)
            return await self._bring() if found is None else found
        finally:
            lock.release()

    async def _bring(self) -> Blob:
        try:
            partial = await uninterrupted(self._open_partial)
            here = await asyncio.to_thread(self._store.blobs.partials.completed, self._key)
            self._completed = max(self._completed, here)
            self._fetcher = self._make_fetcher(partial)
            self._look()
            return await self._complete(partial, self._fetcher)
        finally:
            self._look()
            if self._partial is not None:
                await uninterrupted(self._leave, self._partial)

    def _leave(self, partial: Partial) -> None:
        """Keep it for the next one; a partial with nothing in it is of no use to anybody."""
        if self._store.blobs.partials.completed(self._key):
            partial.close()
        else:
            partial.forget()

    def _open_partial(self) -> Partial:
        """What an earlier download left, or what is sound of a damaged file, or nothing yet."""
        blobs, digest = self._store.blobs, self._file.digest
        facts = FileFacts(self._file.size, None if digest is None else str(digest), self._file.title)
        partial = self._partial = blobs.partials.open(self._key, facts, self._name)
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

    async def _complete(self, partial: Partial, fetcher: Fetcher) -> Blob:
        places = self._file.places
        if not places:
            raise SourceError(f"{self._file.title or 'A file'} can be had nowhere.")
        if partial.size is not None:
            await asyncio.to_thread(fetcher.check_room, partial.size - partial.completed)
        for index, place in enumerate(places):
            try:
                return await self._complete_from(place, partial, fetcher)
            except _OTHER_PLACE_MAY_HELP as error:
                if index == len(places) - 1:
                    raise
                self._notices.append(f"{error.message} Trying {label_of(places[index + 1])}.")
        raise AssertionError("every place has returned or raised")

    async def _complete_from(self, place: Place, partial: Partial, fetcher: Fetcher) -> Blob:
        """Fetch what is missing and verify the whole; what proves damaged is fetched once more."""
        is_all_from_here = partial.completed == 0
        doubts = _MAX_DOUBTS
        while True:
            hashing = PartialHash(partial)
            check = functools.partial(self._check, partial, hashing) if is_all_from_here else None
            # The disk works while bytes come, so that little is left to wait for.
            async with along(partial.flush_if_due, _FLUSH_POLL_SECONDS), hashing.along():
                await fetcher.fetch(place, check)
            async with along(partial.flush):
                await hashing.finish()
            if self._file.digest in (None, hashing.digest()):
                return await uninterrupted(self._install, place, partial, hashing)
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

    async def _check(self, partial: Partial, hashing: PartialHash) -> None:
        """Raises DigestMismatch when what is here, all of one place, is not what was asked for."""
        await hashing.finish()
        if self._file.digest not in (None, hashing.digest()):
            self._refuse(partial, hashing)

    def _wrong_chunks(self, hashing: PartialHash) -> list[Range]:
        """What differs from the file as it once was verified here; nothing where that was never so."""
        digest, found = self._file.digest, hashing.chunk_sums()
        known = self._store.blobs.chunks(digest) if digest is not None else None
        return known.damaged(found) if known is not None and known.size == found.size else []

    def _refuse(self, partial: Partial, hashing: PartialHash) -> NoReturn:
        """What one place has sent, all of it, is not what was asked for."""
        partial.drop_all()
        raise DigestMismatch(str(self._file.digest), str(hashing.digest()))

    def _install(self, place: Place, partial: Partial, hashing: PartialHash) -> Blob:
        blobs, digest = self._store.blobs, hashing.digest()
        blob = Blob(digest, partial.completed)
        partial.finish()
        if not blobs.is_sound(digest, blob.size):
            blobs.adopt(partial.path, digest)
            blobs.record_chunks(digest, hashing.chunk_sums(), (self._name,))
        version = partial.version
        if isinstance(place, HttpFile) and version is not None and version == self._file.version:
            blobs.addresses.remember(place.url, FetchedFile(version, digest, blob.size))
        partial.forget()
        return blob

    def _make_fetcher(self, partial: Partial) -> Fetcher:
        def begin(file: ResolvedFile) -> Download:
            return Download(self._store, file, self._name, self._options, self._open_http, self._environ)

        return Fetcher(
            self._store,
            partial,
            self._key,
            self._options,
            self._environ,
            is_digest_known=self._file.digest is not None,
            open_http=self._open_http,
            begin=begin,
            tell=self._notices.append,
        )
