"""Fetches models by name: what is missing is downloaded once, verified, and installed by one rename."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import BaseFileLock

from registry.blobs import BlobWriter
from registry.catalog import Catalog, CatalogEntry, CatalogFile, LocalSpec, Role, SourceSpec
from registry.create import check_is_model, config_of
from registry.digest import Digest
from registry.errors import DigestMismatch, ModelNotFound, SourceError
from registry.manifest import CONFIG_TYPE, LICENSE_LAYER, MODEL_LAYER, Layer, Manifest
from registry.name import ModelName
from registry.progress import Progress
from registry.sources.local import LocalSource
from registry.sources.source import Sink, Source
from registry.store import ModelStore

_MEDIA_TYPES: Mapping[Role, str] = {"model": MODEL_LAYER, "license": LICENSE_LAYER}
_REPORT_SECONDS = 0.1
_LOCK_POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class PullOptions:
    """How downloads behave."""

    idle_timeout_seconds: float = 120.0
    """Give up when nothing has come for so long."""
    keep_free_bytes: int = 1 << 30
    """Room that a download leaves on the disk."""
    proxy: str | None = None
    ca_bundle: Path | None = None


class Puller:
    """Owns the downloads under way: one for each digest, whoever asks for it."""

    def __init__(
        self,
        store: ModelStore,
        catalog: Catalog,
        options: PullOptions | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._options = options or PullOptions()
        self._environ = os.environ if environ is None else environ
        self._downloads: dict[Digest, _Download] = {}

    async def pull(self, name: ModelName) -> AsyncGenerator[Progress]:
        """Fetch a model, telling each step; the last is `success`. A file that is here and damaged is replaced.

        The download of a file ends when nobody follows it any more. Raises ModelNotFound, SourceError,
        DigestMismatch, DiskFull or StoreReadOnly; then nothing is installed.
        """
        yield Progress("pulling manifest")
        entry = self._catalog.find(name)
        if entry is None:
            raise ModelNotFound(
                f"pull model manifest: file does not exist ({name.short} is not in the catalog, which has "
                f"{', '.join(known.name.short for known in self._catalog.entries())})",
                model=name.short,
            )
        for file in entry.files:
            async with contextlib.aclosing(self._fetch(entry, file)) as steps:
                async for progress in steps:
                    yield progress
        yield Progress("verifying sha256 digest")
        manifest = await asyncio.to_thread(self._make_manifest, entry)
        yield Progress("writing manifest")
        if await asyncio.to_thread(self._store.write_manifest, name, manifest):
            yield Progress("removing unused layers")
        yield Progress("success")

    async def _fetch(self, entry: CatalogEntry, file: CatalogFile) -> AsyncGenerator[Progress]:
        status = f"pulling {file.digest.short}"
        if not await asyncio.to_thread(self._store.blobs.is_sound, file.digest, file.size):
            download = self._join(entry, file)
            try:
                async with contextlib.aclosing(download.follow()) as steps:
                    async for notice, completed in steps:
                        if notice is not None:
                            yield Progress(notice)
                        else:
                            yield Progress(status, str(file.digest), file.size, completed)
            finally:
                await self._leave(file.digest, download)
        yield Progress(status, str(file.digest), file.size, file.size)

    def _join(self, entry: CatalogEntry, file: CatalogFile) -> _Download:
        download = self._downloads.get(file.digest)
        if download is None or download.is_over:
            download = _Download(self._store, file, lambda: self._sources(entry), self._options.keep_free_bytes)
            self._downloads[file.digest] = download
        download.followers += 1
        return download

    async def _leave(self, digest: Digest, download: _Download) -> None:
        download.followers -= 1
        if download.followers == 0:
            if self._downloads.get(digest) is download:
                del self._downloads[digest]
            await download.stop()

    def _sources(self, entry: CatalogEntry) -> list[Source]:
        return [_source(spec, self._options, self._environ) for spec in entry.sources]

    def _make_manifest(self, entry: CatalogEntry) -> Manifest:
        metadata = self._store.metadata(entry.digest)
        check_is_model(metadata)
        config = self._store.add_blob([config_of(metadata).to_bytes()])
        return Manifest(
            config=Layer(CONFIG_TYPE, config.digest, config.size),
            layers=tuple(Layer(_MEDIA_TYPES[file.role], file.digest, file.size) for file in entry.files),
        )


def _source(spec: SourceSpec, options: PullOptions, environ: Mapping[str, str]) -> Source:
    if isinstance(spec, LocalSpec):
        return LocalSource(spec)
    # Only pulls pay for loading the HTTP client, and they do it in a thread.
    from registry.sources.package_index import PackageIndexSource

    return PackageIndexSource(
        spec,
        environ=environ,
        idle_timeout_seconds=options.idle_timeout_seconds,
        proxy=options.proxy,
        ca_bundle=options.ca_bundle,
    )


class _Download:
    """One file on its way into the store, in a task of its own."""

    def __init__(
        self, store: ModelStore, file: CatalogFile, make_sources: Callable[[], Sequence[Source]], keep_free: int
    ) -> None:
        self.followers = 0
        self._store = store
        self._file = file
        self._make_sources = make_sources
        self._keep_free = keep_free
        self._completed = 0
        self._writer: BlobWriter | None = None
        self._notices: list[str] = []
        self._task = asyncio.create_task(self._run())

    @property
    def is_over(self) -> bool:
        return self._task.done()

    async def follow(self) -> AsyncGenerator[tuple[str | None, int]]:
        """Notices, and how many bytes are there, which never become fewer. Raises what the download raised."""
        told = len(self._notices)
        shown = -1
        while True:
            for notice in self._notices[told:]:
                yield notice, self._completed
            told = len(self._notices)
            self._completed = max(self._completed, self._writer.size if self._writer else 0)
            if self._completed != shown:
                shown = self._completed
                yield None, shown
            if self._task.done():
                await self._task
                return
            await asyncio.wait((self._task,), timeout=_REPORT_SECONDS)

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.wait((self._task,))
        if not self._task.cancelled():
            self._task.exception()

    async def _run(self) -> None:
        lock = await self._acquire()
        try:
            # Whoever had the lock before may have finished the file.
            if await asyncio.to_thread(self._store.blobs.is_sound, self._file.digest, self._file.size):
                return
            await asyncio.to_thread(self._store.blobs.check_room, self._file.size, self._keep_free)
            self._writer = self._store.blobs.download(self._file.digest)
            try:
                await self._fetch(self._writer)
                await asyncio.to_thread(self._writer.commit)
            finally:
                await asyncio.to_thread(self._writer.abort)
        finally:
            lock.release()

    async def _acquire(self) -> BaseFileLock:
        """The only right to write this file; while another process has it, its progress is told."""
        while True:
            # Not in a thread: a lock that was won while the task is cancelled would never be given back.
            lock = self._store.try_download_lock(self._file.digest)
            if lock is not None:
                return lock
            elsewhere = await asyncio.to_thread(self._store.blobs.downloaded, self._file.digest)
            self._completed = min(self._file.size, max(self._completed, elsewhere))
            await asyncio.sleep(_LOCK_POLL_SECONDS)

    async def _fetch(self, writer: BlobWriter) -> None:
        sink = Sink(self._file, writer, self._notices.append)
        sources = await asyncio.to_thread(self._make_sources)
        for index, source in enumerate(sources):
            try:
                await source.fetch(self._file.role, sink)
                return
            except (SourceError, DigestMismatch) as error:
                if index == len(sources) - 1:
                    raise
                self._notices.append(f"{source.label}: {error.message} Trying {sources[index + 1].label}.")
