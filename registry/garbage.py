"""What the store keeps that nothing needs: files of no model, and what was left of work long over."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from registry.digest import Digest
from registry.store import ModelStore

MIN_AGE_SECONDS = 3600.0
"""What is younger may belong to a pull or a creation under way, in this process or another."""


class Kind(Enum):
    BLOB = "blob"
    LEFTOVER = "leftover"


@dataclass(frozen=True, slots=True)
class Garbage:
    """One file that can go."""

    path: Path
    size: int
    """Bytes on the disk that removing it gives back."""
    kind: Kind
    digest: Digest | None = None


@dataclass(frozen=True, slots=True)
class Collection:
    """What can go, or has gone, and what may only go later."""

    files: tuple[Garbage, ...]
    too_young: tuple[Garbage, ...]

    @property
    def size(self) -> int:
        return _sum(self.files)

    @property
    def too_young_size(self) -> int:
        return _sum(self.too_young)


def find_garbage(store: ModelStore, min_age_seconds: float = MIN_AGE_SECONDS) -> Collection:
    """What `collect_garbage` would remove. Blocks.

    There are no unneeded blobs while a manifest cannot be read, since it may need them.
    """
    ages = dict(store.blobs.all())
    found = [(_of_blob(store, digest), ages[digest]) for digest in store.unneeded(ages)]
    found += [(Garbage(path, size, Kind.LEFTOVER), age) for path, size, age in store.blobs.leftovers()]
    return Collection(
        tuple(garbage for garbage, age in found if age >= min_age_seconds),
        tuple(garbage for garbage, age in found if age < min_age_seconds),
    )


def collect_garbage(store: ModelStore, min_age_seconds: float = MIN_AGE_SECONDS) -> Collection:
    """Remove what nothing needs; returns what has really gone. Blocks. Raises StoreReadOnly."""
    before = find_garbage(store, min_age_seconds)
    store.prune(min_age_seconds)
    return Collection(tuple(one for one in before.files if not one.path.exists()), before.too_young)


def _of_blob(store: ModelStore, digest: Digest) -> Garbage:
    own = store.blobs.places.own(digest)
    path = own if own.exists() else store.blobs.places.references.path(digest)
    try:
        status = path.stat()
    except OSError:
        return Garbage(path, 0, Kind.BLOB, digest)
    # A file that has other names elsewhere gives nothing back when one of them goes.
    return Garbage(path, status.st_size if status.st_nlink == 1 else 0, Kind.BLOB, digest)


def _sum(files: Iterable[Garbage]) -> int:
    return sum(garbage.size for garbage in files)
