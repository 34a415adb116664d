"""What a pull would bring and whether there is room for it, without fetching anything."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from registry.download import partial_key
from registry.manifest import ADAPTER_LAYER, MODEL_LAYER, PROJECTOR_LAYER
from registry.name import ModelName
from registry.sources.resolved import ResolvedFile, ResolvedModel
from registry.store import ModelStore

_LOADED = frozenset({MODEL_LAYER, PROJECTOR_LAYER, ADAPTER_LAYER})


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """One file of a model that could be pulled."""

    title: str
    media_type: str
    digest: str | None
    size: int | None
    here: int
    """Bytes of it that need not be fetched."""

    @property
    def to_fetch(self) -> int | None:
        return None if self.size is None else self.size - self.here


@dataclass(frozen=True, slots=True)
class PullPlan:
    """Everything a pull would bring, and the disk it would go to."""

    name: ModelName
    files: tuple[PlannedFile, ...]
    free: int
    keep_free: int

    @property
    def size(self) -> int:
        """As far as the source tells it."""
        return sum(file.size or 0 for file in self.files)

    @property
    def to_fetch(self) -> int:
        return sum(file.to_fetch or 0 for file in self.files)

    @property
    def weights(self) -> int:
        """Bytes that are loaded into memory when the model runs."""
        return sum(file.size or 0 for file in self.files if file.media_type in _LOADED)

    @property
    def fits_on_disk(self) -> bool:
        return self.to_fetch == 0 or self.to_fetch <= self.free - self.keep_free


def plan_pull(store: ModelStore, name: ModelName, model: ResolvedModel, keep_free: int) -> PullPlan:
    """Blocks for a moment, looking at what is here."""
    folder = next(folder for folder in (store.root, *store.root.parents) if folder.exists())
    files = tuple(_planned(store, file) for file in model.files)
    return PullPlan(name, files, shutil.disk_usage(folder).free, keep_free)


def _planned(store: ModelStore, file: ResolvedFile) -> PlannedFile:
    here = 0
    if file.digest is not None and store.blobs.has(file.digest):
        here = store.blobs.size(file.digest) if file.size is None else file.size
    else:
        here = store.blobs.partials.completed(partial_key(file))
    title = file.title or (file.digest.short if file.digest is not None else "a file")
    digest = str(file.digest) if file.digest is not None else None
    return PlannedFile(title, file.media_type, digest, file.size, here)
