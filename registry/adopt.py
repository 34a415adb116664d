"""Makes models that other programs keep the store's own, in place: without a second copy of their files."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from registry.bringing import HashedFile, copy_in, hash_file, link_in
from registry.created_config import config_of
from registry.errors import ModelNotFound
from registry.found_models import FoundFile, FoundModel
from registry.linking import Way
from registry.manifest import CONFIG_TYPE, MODEL_LAYER, PROJECTOR_LAYER, Layer, Manifest
from registry.parts import join_shards
from registry.store import ModelStore
from registry.stored_model import StoredModel

Tell = Callable[[str, int, int], None]
"""What is being done, bytes done, bytes in all."""


class State(enum.Enum):
    """What adopting a model comes to."""

    NEW = "new"
    KNOWN = "already here"
    TAKEN = "another model has the name"


@dataclass(frozen=True, slots=True)
class Adoption:
    """What became of one model."""

    model: FoundModel
    state: State
    ways: tuple[Way, ...] = ()
    """How its weights came here; empty when they were here already."""


def foresee(store: ModelStore, model: FoundModel) -> State:
    """What `adopt` would come to, as far as can be told without reading whole files."""
    present = _present(store, model)
    if present is None:
        return State.NEW
    if model.manifest is not None:
        return State.KNOWN if Manifest.from_bytes(model.manifest) == present.manifest else State.TAKEN
    sizes = [layer.size for layer in present.manifest.of_type(MODEL_LAYER)]
    return State.KNOWN if sizes == [file.size for file in _weights(model)] else State.TAKEN


def shares(store: ModelStore, model: FoundModel) -> bool:
    """Whether the files can probably be shared by name, and need not be used where they are."""
    folder = next(folder for folder in (store.root, *store.root.parents) if folder.exists())
    return model.origin.stat().st_dev == folder.stat().st_dev


def adopt(store: ModelStore, model: FoundModel, tell: Tell, *, by_copy: bool = False, force: bool = False) -> Adoption:
    """Install a model that was found; blocks while its files are hashed, once.

    A name that another model has is left alone without `force`. Raises DigestMismatch for a file that
    is not what its name promises, ModelInvalid for one that changes meanwhile or cannot be read,
    StoreReadOnly and DiskFull; then nothing is installed.
    """
    if not force and foresee(store, model) is State.TAKEN:
        return Adoption(model, State.TAKEN)
    files = [_hash(file, model, tell) for file in model.files]
    present = _present(store, model)
    if present is not None and _is_same(present, model, files) and not present.is_damaged:
        return Adoption(model, State.KNOWN)
    if present is not None and not force and not _is_same(present, model, files):
        return Adoption(model, State.TAKEN)
    # Before the lock is taken: what is here and was never verified is hashed.
    missing = [file for file in files if not store.blobs.is_sound(file.digest, file.size)]
    if by_copy:
        for file in missing:
            copy_in(store.blobs, file, lambda done, total: tell(f"copying {model.name.short}", done, total))
    manifest = _manifest(store, model, files)
    ways: dict[HashedFile, Way] = dict.fromkeys(missing, Way.COPY)

    def link() -> None:
        ways.update((file, way) for file in files if (way := link_in(store.blobs, store.root, file)) is not None)

    store.write_manifest(model.name, manifest, model.manifest, bring=None if by_copy else link)
    weights = [file for file, about in zip(files, model.files, strict=True) if about.media_type == MODEL_LAYER]
    return Adoption(model, State.NEW, tuple(dict.fromkeys(ways[file] for file in weights if file in ways)))


def _hash(file: FoundFile, model: FoundModel, tell: Tell) -> HashedFile:
    return hash_file(file.path, file.digest, lambda done, total: tell(f"verifying {model.name.short}", done, total))


def _present(store: ModelStore, model: FoundModel) -> StoredModel | None:
    try:
        return store.find(model.name)
    except ModelNotFound:
        return None


def _is_same(present: StoredModel, model: FoundModel, files: Sequence[HashedFile]) -> bool:
    if model.manifest is not None:
        return Manifest.from_bytes(model.manifest) == present.manifest
    found = [file.digest for file, about in zip(files, model.files, strict=True) if about.media_type == MODEL_LAYER]
    return found == [layer.digest for layer in present.manifest.of_type(MODEL_LAYER)]


def _weights(model: FoundModel) -> list[FoundFile]:
    return [file for file in model.files if file.media_type == MODEL_LAYER]


def _manifest(store: ModelStore, model: FoundModel, files: Sequence[HashedFile]) -> Manifest:
    if model.manifest is not None:
        return Manifest.from_bytes(model.manifest)
    headers = {
        media_type: [file.metadata for file in model.files if file.media_type == media_type and file.metadata]
        for media_type in (MODEL_LAYER, PROJECTOR_LAYER)
    }
    config = config_of(join_shards(headers[MODEL_LAYER]), *headers[PROJECTOR_LAYER])
    blob = store.add_blob([config.to_bytes()])
    layers = [Layer(about.media_type, file.digest, file.size) for about, file in zip(model.files, files, strict=True)]
    return Manifest(Layer(CONFIG_TYPE, blob.digest, blob.size), tuple(layers))
