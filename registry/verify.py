"""Reads the files of models again, and tells which are damaged and where."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from registry.byte_ranges import Range
from registry.content_hash import ChunkSums, ContentHash
from registry.digest import Digest
from registry.manifest import Layer
from registry.progress import Progress
from registry.store import ModelStore
from registry.stored_model import StoredModel
from registry.verdicts import facts_of

_READ_BYTES = 1 << 20
_REPORT_BYTES = 64 << 20


class FileState(Enum):
    SOUND = "sound"
    DAMAGED = "damaged"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class FileVerdict:
    """What was found of one file."""

    digest: Digest
    size: int
    """As the manifest says."""
    state: FileState
    damaged: tuple[Range, ...] = ()
    """Where it is damaged, in whole chunks; all of it, when nobody knows where."""
    in_place: bool = False
    """It is used, or was, where another program keeps it."""

    @property
    def damaged_bytes(self) -> int:
        return sum(end - start for start, end in self.damaged)


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found of some models."""

    models: tuple[StoredModel, ...]
    files: tuple[FileVerdict, ...]

    @property
    def unsound(self) -> tuple[FileVerdict, ...]:
        return tuple(file for file in self.files if file.state is not FileState.SOUND)

    def models_with(self, digest: Digest) -> list[str]:
        """The models that are made of a file, among others."""
        return [
            model.name.short
            for model in self.models
            if any(layer.digest == digest for layer in model.manifest.all_layers)
        ]


async def verify(store: ModelStore, models: Sequence[StoredModel]) -> AsyncGenerator[Progress | Verification]:
    """Hash every file of the models once, telling how far it is; what was found comes last.

    The verdicts are kept: a damaged file is told of from then on, and not loaded. Reads in threads.
    """
    layers = {layer.digest: layer for model in models for layer in model.manifest.all_layers}
    verdicts = []
    for layer in layers.values():
        status = f"verifying {layer.digest.short}"
        steps = _verify_file(store, layer)
        while (step := await asyncio.to_thread(next, steps, None)) is not None:
            if isinstance(step, FileVerdict):
                verdicts.append(step)
            else:
                yield Progress(status, str(layer.digest), layer.size, min(step, layer.size))
    yield Verification(tuple(models), tuple(verdicts))


def _verify_file(store: ModelStore, layer: Layer) -> Iterator[int | FileVerdict]:
    """How many bytes have been read, now and then; the verdict last. Blocks."""
    blobs = store.blobs
    path, in_place = blobs.path(layer.digest), blobs.is_in_place(layer.digest)
    hashes = ContentHash()
    try:
        facts = facts_of(path)
        with path.open("rb", buffering=0) as file:
            while piece := file.read(_READ_BYTES):
                hashes.update(piece)
                if hashes.position % _REPORT_BYTES == 0:
                    yield hashes.position
    except FileNotFoundError:
        yield FileVerdict(layer.digest, layer.size, FileState.MISSING, ((0, layer.size),), in_place)
        return
    except OSError:
        # A disk that does not give a file's bytes back has lost them.
        yield FileVerdict(layer.digest, layer.size, FileState.DAMAGED, ((0, layer.size),), in_place)
        return
    is_sound = hashes.digest() == layer.digest and hashes.position == layer.size
    blobs.record(layer.digest, facts, is_sound=is_sound)
    known = blobs.chunks(layer.digest)
    if is_sound:
        if known is None:
            blobs.record_chunks(layer.digest, hashes.chunk_sums())
        yield hashes.position
        yield FileVerdict(layer.digest, layer.size, FileState.SOUND)
        return
    damage = _damage(known, hashes.chunk_sums(), layer.size)
    yield FileVerdict(layer.digest, layer.size, FileState.DAMAGED, damage, in_place)


def _damage(known: ChunkSums | None, found: ChunkSums, size: int) -> tuple[Range, ...]:
    if known is None or known.size != size:
        return ((0, size),)
    return tuple(known.damaged(found)) or ((0, size),)
