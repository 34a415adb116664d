"""Fetches models by name: what is missing is downloaded once, verified, and installed by one rename."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import itertools
import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING

from registry.blobs import Blob
from registry.created_config import config_of
from registry.download import Download
from registry.errors import ModelInvalid, ModelNotFound, Unsupported
from registry.gguf_metadata import GgufMetadata
from registry.manifest import CONFIG_TYPE, MODEL_LAYER, PROJECTOR_LAYER, Layer, Manifest
from registry.name import ModelName
from registry.parts import check_weights, join_shards
from registry.place_names import partial_key
from registry.progress import Progress
from registry.pull_options import PullOptions, http_options
from registry.pull_plan import PullPlan, distinct, plan_pull, room_for
from registry.sources.resolved import Find, ModelSource, ResolvedFile, ResolvedModel
from registry.store import ModelStore
from registry.under_way import until_told
from registry.unfinished import WantedFile

if TYPE_CHECKING:
    from registry.sources.http import HttpClient


class Puller:
    """Owns the downloads under way: one for each file, whoever asks for it."""

    def __init__(
        self,
        store: ModelStore,
        sources: Sequence[ModelSource],
        options: PullOptions | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """`sources` are asked in order; the first that handles a name has it."""
        self._store = store
        self._sources = tuple(sources)
        self._options = options or PullOptions()
        self._environ = os.environ if environ is None else environ
        self._downloads: dict[str, Download] = {}
        self._http: HttpClient | None = None
        self._http_users = 0

    async def pull(
        self, name: ModelName, *, insecure: bool = False, find: Find | None = None, source: str | None = None
    ) -> AsyncGenerator[Progress]:
        """Fetch a model, telling each step; the last is `success`. A file that is here and damaged is replaced.

        `find` says what it is made of instead of the source that the name tells; `source` is that other
        source's name, noted for as long as the pull is unfinished.
        The download of a file ends when nobody follows it any more; what has come is kept, and gone on
        with next time. `insecure` allows plain HTTP and unverified TLS where the source's rules let a
        caller say so. Raises ModelNotFound (also when `end` is called for the model, in whatever process),
        SourceError, Unauthorized, RegistryForbidden, DigestMismatch, ModelInvalid, DiskFull or StoreReadOnly;
        then nothing is installed.
        """
        mark = await asyncio.to_thread(self._store.blobs.pulls_under_way.enter, name)
        try:
            async with contextlib.aclosing(until_told(mark, self._steps(name, insecure, find, source))) as steps:
                async for progress in steps:
                    yield progress
        finally:
            await asyncio.to_thread(mark.leave)

    def processes(self, name: ModelName) -> list[int]:
        """Who is pulling a model into the store: process ids, one for each pull, this process's too. Blocks."""
        return self._store.blobs.pulls_under_way.processes(name)

    def end(self, name: ModelName) -> list[int]:
        """Tell all pulls of a model to stop, and wait for that; returns the processes that did not. Blocks."""
        return self._store.blobs.pulls_under_way.end(name)

    async def plan(self, name: ModelName, *, insecure: bool = False, find: Find | None = None) -> PullPlan:
        """What `pull` would bring; fetches nothing, writes nothing. Raises as the source does."""
        notices: list[str] = []
        model = await (self._resolve(name, insecure, notices) if find is None else find(notices.append))
        return await asyncio.to_thread(plan_pull, self._store, name, model, self._options.keep_free_bytes)

    async def fetch_files(self, name: ModelName, files: Sequence[ResolvedFile]) -> AsyncGenerator[Progress]:
        """Bring some files here, as `pull` does, and install nothing; of a damaged one only what is not sound."""
        blobs: list[Blob] = []
        async with self._open_http():
            for file in files:
                async with contextlib.aclosing(self._fetch(name, file, blobs)) as steps:
                    async for progress in steps:
                        yield progress

    async def _steps(
        self, name: ModelName, insecure: bool, find: Find | None, source: str | None
    ) -> AsyncGenerator[Progress]:
        yield Progress("pulling manifest")
        notices: list[str] = []
        model = await (self._resolve(name, insecure, notices) if find is None else find(notices.append))
        for notice in notices:
            yield Progress(notice)
        await asyncio.to_thread(self._check_room, model.files)
        await asyncio.to_thread(self._remember, name, model, source)
        blobs: list[Blob] = []
        try:
            async with self._open_http():  # kept open from one file to the next
                for file in model.files:
                    async with contextlib.aclosing(self._fetch(name, file, blobs)) as steps:
                        async for progress in steps:
                            yield progress
                    if file.digest is None:
                        await asyncio.to_thread(self._remember, name, model, source, blobs)
        except BaseException:
            self._forget_if_vain(name, model)
            raise
        yield Progress("verifying sha256 digest")
        try:
            manifest = await asyncio.to_thread(self._make_manifest, model, blobs)
        except (ModelInvalid, Unsupported):
            # Going on with this one would lead nowhere.
            self._store.blobs.pulls.forget(name)
            raise
        yield Progress("writing manifest")
        if await asyncio.to_thread(self._store.write_manifest, name, manifest, model.manifest):
            yield Progress("removing unused layers")
        await asyncio.to_thread(self._store.blobs.pulls.forget, name)
        yield Progress("success")

    async def _resolve(self, name: ModelName, insecure: bool, notices: list[str]) -> ResolvedModel:
        for source in self._sources:
            if source.handles(name):
                return await source.resolve(name, notices.append, insecure=insecure)
        raise ModelNotFound(f"pull model manifest: file does not exist ({name.short})", model=name.short)

    def _check_room(self, files: Sequence[ResolvedFile]) -> None:
        """All files together must fit, before the first is begun."""
        needed = sum(room_for(self._store, file) for file in distinct(files))
        self._store.blobs.check_room(needed, self._options.keep_free_bytes)

    def _remember(self, name: ModelName, model: ResolvedModel, source: str | None, blobs: Sequence[Blob] = ()) -> None:
        """Note what this pull wants, as far as its bytes have told by now."""
        wanted = [
            WantedFile(partial_key(file), file.digest, file.size, file.title)
            if blob is None
            else WantedFile(partial_key(file), blob.digest, blob.size, file.title)
            for file, blob in itertools.zip_longest(model.files, blobs)
        ]
        self._store.blobs.pulls.remember(name, wanted, source)

    def _forget_if_vain(self, name: ModelName, model: ResolvedModel) -> None:
        """Nothing is unfinished of which nothing is here, and which nobody else is pulling."""
        partials, blobs = self._store.blobs.partials, self._store.blobs
        is_begun = any(
            partials.completed(partial_key(file)) or (file.digest is not None and blobs.has(file.digest))
            for file in model.files
        )
        if not is_begun and len(blobs.pulls_under_way.processes(name)) < 2:
            blobs.pulls.forget(name)

    async def _fetch(self, name: ModelName, file: ResolvedFile, blobs: list[Blob]) -> AsyncGenerator[Progress]:
        """Bring one file here, and put what it came to at the end of `blobs`."""
        blob = await asyncio.to_thread(self._find, file)
        status = f"pulling {_title(file)}"
        digest = str(file.digest) if file.digest is not None else None
        if blob is None:
            key, download = self._join(name, file)
            try:
                async with contextlib.aclosing(download.follow()) as steps:
                    async for told, completed in steps:
                        if isinstance(told, Progress):
                            yield told
                        elif told is not None:
                            yield Progress(told)
                        else:
                            yield Progress(status, digest, download.size, completed)
                blob = download.blob
            finally:
                await self._leave(key, download)
        blobs.append(blob)
        yield Progress(status, str(blob.digest), blob.size, blob.size)

    def _find(self, file: ResolvedFile) -> Blob | None:
        if file.digest is None or not self._store.blobs.has(file.digest):
            return None
        size = self._store.blobs.size(file.digest) if file.size is None else file.size
        return Blob(file.digest, size) if self._store.blobs.is_sound(file.digest, size) else None

    def _join(self, name: ModelName, file: ResolvedFile) -> tuple[str, Download]:
        key = partial_key(file)
        download = self._downloads.get(key)
        if download is None or download.is_over:
            download = Download(self._store, file, name.short, self._options, self._open_http, self._environ)
            self._downloads[key] = download
        download.followers += 1
        return key, download

    async def _leave(self, key: str, download: Download) -> None:
        download.followers -= 1
        if download.followers == 0:
            if self._downloads.get(key) is download:
                del self._downloads[key]
            await download.stop()

    @contextlib.asynccontextmanager
    async def _open_http(self) -> AsyncIterator[HttpClient]:
        """The one client of all downloads, for as long as anybody needs it."""
        # Only pulls pay for loading the HTTP client, and they do it in a thread.
        await asyncio.to_thread(importlib.import_module, "registry.sources.http")
        from registry.sources.http import HttpClient

        if self._http is None:
            self._http = HttpClient(http_options(self._options))
        http = self._http
        self._http_users += 1
        try:
            yield http
        finally:
            self._http_users -= 1
            if self._http_users == 0:
                self._http = None
                await http.aclose()

    def _make_manifest(self, model: ResolvedModel, blobs: Sequence[Blob]) -> Manifest:
        """The source's own, or one of what has come. Raises ModelInvalid or Unsupported."""
        layers = [Layer(file.media_type, blob.digest, blob.size) for file, blob in zip(model.files, blobs, strict=True)]
        made = make_config(self._store, layers)
        if model.manifest is not None:
            return Manifest.from_bytes(model.manifest)
        configs = [layer for layer in layers if layer.media_type == CONFIG_TYPE]
        if configs:
            config = configs[-1]
        elif made is not None:
            blob = self._store.add_blob([made])
            config = Layer(CONFIG_TYPE, blob.digest, blob.size)
        else:
            raise ModelInvalid("The source has no weights under this name.")
        return Manifest(config, tuple(layer for layer in layers if layer.media_type != CONFIG_TYPE))


def make_config(store: ModelStore, layers: Sequence[Layer]) -> bytes | None:
    """The config of a model whose files are here, as they tell it; None for one without weights.

    Raises ModelInvalid or Unsupported when they are no model.
    """

    def headers(media_type: str) -> list[GgufMetadata]:
        return [store.metadata(layer.digest) for layer in layers if layer.media_type == media_type]

    weights = headers(MODEL_LAYER)
    if not weights:
        return None
    metadata = join_shards(weights)
    check_weights(metadata)
    return config_of(metadata, *headers(PROJECTOR_LAYER)).to_bytes()


def _title(file: ResolvedFile) -> str:
    return file.digest.short if file.digest is not None else file.title or "a file"
