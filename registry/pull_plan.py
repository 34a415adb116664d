"""What a pull would bring and whether there is room for it, without fetching anything."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass

from registry.manifest import ADAPTER_LAYER, MODEL_LAYER, PROJECTOR_LAYER
from registry.name import ModelName
from registry.place_names import partial_key
from registry.sources.resolved import ConvertedCheckpoint, ResolvedFile, ResolvedModel
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
    to_fetch: int | None
    """Bytes that come from elsewhere; more than the file has where it is made here of others."""
    room: int
    """Bytes that bringing it takes on the disk, some of them only for a while; as far as that is known."""


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
        room = sum(file.room for file in self.files)
        return room == 0 or room <= self.free - self.keep_free


def plan_pull(store: ModelStore, name: ModelName, model: ResolvedModel, keep_free: int) -> PullPlan:
    """Blocks for a moment, looking at what is here."""
    folder = next(folder for folder in (store.root, *store.root.parents) if folder.exists())
    files = tuple(_planned(store, file) for file in distinct(model.files))
    return PullPlan(name, files, shutil.disk_usage(folder).free, keep_free)


def distinct(files: Sequence[ResolvedFile]) -> list[ResolvedFile]:
    """Each file once, however often a model names it."""
    return list({partial_key(file): file for file in files}.values())


def room_for(store: ModelStore, file: ResolvedFile) -> int:
    """How many bytes of the disk bringing a file will take, as far as that is known. Blocks for a moment."""
    return _planned(store, file).room


def _planned(store: ModelStore, file: ResolvedFile) -> PlannedFile:
    here = 0
    if file.digest is not None and store.blobs.has(file.digest):
        here = store.blobs.size(file.digest) if file.size is None else file.size
    else:
        here = store.blobs.partials.completed(partial_key(file))
    title = file.title or (file.digest.short if file.digest is not None else "a file")
    digest = str(file.digest) if file.digest is not None else None
    lacking = None if file.size is None else max(0, file.size - here)
    checkpoint = file.places[0] if file.places else None
    if not lacking or not isinstance(checkpoint, ConvertedCheckpoint):
        return PlannedFile(title, file.media_type, digest, file.size, here, lacking, lacking or 0)
    to_fetch = sum(_lacking(store, one) for one in checkpoint.as_files())
    # It is written beside the store's blobs first, while what it is made of is still there.
    return PlannedFile(title, file.media_type, digest, file.size, here, to_fetch, to_fetch + 2 * lacking)


def _lacking(store: ModelStore, file: ResolvedFile) -> int:
    return _planned(store, file).to_fetch or 0
