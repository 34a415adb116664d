"""Files named by their digest: written as a partial, verified, and only then renamed."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import BaseFileLock

from registry.atomic_write import sync_folder, write_atomically
from registry.blob_places import BlobPlaces
from registry.blob_writer import BlobWriter
from registry.content_hash import ChunkSums
from registry.digest import Digest
from registry.errors import DiskFull, Fact, InvalidRequest, ModelCorrupt
from registry.fetched_addresses import FetchedAddresses
from registry.locks import clear_unless_held, try_acquire, writing
from registry.partial_keys import is_key, owner_of
from registry.partials import MAX_AGE_SECONDS as PARTIAL_MAX_AGE_SECONDS
from registry.partials import Partials
from registry.sizes import shown_size
from registry.under_way import PullsUnderWay
from registry.unfinished import UnfinishedPulls
from registry.verdicts import BlobFacts, Verdicts, facts_of

logger = logging.getLogger(__name__)

PIECE_BYTES = 1024 * 1024
LOCK_SUFFIX = ".lock"


@dataclass(frozen=True, slots=True)
class Blob:
    """A verified file of the store."""

    digest: Digest
    size: int


class Blobs:
    """Owns `blobs/`, the partials of files under way, and the records of what was verified."""

    def __init__(self, root: Path, layers: Sequence[Path] = ()) -> None:
        """`layers` are stores whose blobs are used where they are, and never written."""
        self._root = root
        self.places = BlobPlaces(root, layers)
        self._blobs = root / "blobs"
        self._partials = root / "partials"
        self._locks = root / "locks"
        self._chunks = root / "chunks"
        self.partials = Partials(self._partials)
        """Downloads under way."""
        self.pulls = UnfinishedPulls(root)
        self.pulls_under_way = PullsUnderWay(root)
        self.addresses = FetchedAddresses(root)
        self._verdicts = Verdicts(root, self.places)
        self._told: set[tuple[Digest, str]] = set()
        """Which lost originals are in the log already."""

    def path(self, digest: Digest) -> Path:
        """Where the file is to be read; perhaps in another program's folder or in a layer, so never written."""
        return self.places.find(digest)

    def has_own(self, digest: Digest) -> bool:
        """Whether the store itself has the file, or a reference to one elsewhere."""
        return self.places.own(digest).exists() or self.places.references.find(digest) is not None

    def is_in_place(self, digest: Digest) -> bool:
        """Whether the file is used, or was, where another program keeps it."""
        return self.places.reference(digest) is not None

    def has(self, digest: Digest) -> bool:
        """Whether the file is there, and has not been found damaged."""
        try:
            facts = facts_of(self.path(digest))
        except OSError:
            return False
        return self._verdicts.find(digest, facts) is not False

    def is_sound(self, digest: Digest, size: int) -> bool:
        """Whether the file is there and is what its digest says; blocks while hashing one that has changed."""
        try:
            self.verify_unchanged(digest, size)
        except ModelCorrupt:
            return False
        return True

    def is_damaged(self, digest: Digest, size: int) -> bool:
        """Whether it is known, without reading the file, that it is not what it should be."""
        try:
            facts = facts_of(self.path(digest))
        except OSError:
            return True
        return facts.size != size or self._verdicts.find(digest, facts) is False

    def size(self, digest: Digest) -> int:
        """Raises ModelCorrupt when the blob is not there."""
        try:
            return self.path(digest).stat().st_size
        except OSError:
            raise self._missing(digest) from None

    def read(self, digest: Digest, limit: int) -> bytes:
        """A small blob's content, at most `limit` bytes. Raises ModelCorrupt."""
        if self.size(digest) > limit:
            raise ModelCorrupt(f"The blob {digest} is larger than {limit} bytes.", digest=str(digest))
        try:
            return self.path(digest).read_bytes()
        except OSError:
            raise self._missing(digest) from None

    def add(self, chunks: Iterable[bytes], expected: Digest | None = None) -> Blob:
        """Store bytes under their digest; blocks. Raises DigestMismatch, DiskFull or StoreReadOnly."""
        with self.writer(expected) as writer:
            for chunk in chunks:
                writer.write(chunk)
            return writer.commit()

    def writer(self, expected: Digest | None = None) -> BlobWriter:
        """A file under way. Other writers of the same digest do not meet it."""
        name = f"{expected.file_name if expected else 'unnamed'}.{secrets.token_hex(8)}"
        return BlobWriter(self, self._root, self._partials / name, expected)

    def try_lock(self, key: str) -> BaseFileLock | None:
        """The right to write the partial of that key, or None while somebody else has it."""
        with writing(self._root):
            return try_acquire(self._locks / f"{key}{LOCK_SUFFIX}")

    def check_room(self, size: int, keep_free: int) -> None:
        """Raises DiskFull when a file of that size would leave less than `keep_free` bytes on the disk."""
        folder = next(folder for folder in (self._root, *self._root.parents) if folder.exists())
        free = shutil.disk_usage(folder).free
        if free - keep_free < size:
            raise DiskFull(
                f"The model needs {shown_size(size)}; {shown_size(free)} are free, of which "
                f"{shown_size(keep_free)} stay free (pull.keep_free_bytes).",
                needed=size,
                free=free,
                keep_free=keep_free,
            )

    def check_size(self, digest: Digest, size: int) -> None:
        """Raises ModelCorrupt when the file is not there in that size."""
        actual = self.size(digest)
        if actual != size:
            raise self._corrupt(digest, f"has {actual} bytes; {size} were verified", expected=size, actual=actual)

    def verify_unchanged(self, digest: Digest, size: int) -> None:
        """Compare a blob with what was verified, and hash it again when its time or size differ.

        Blocks while hashing. Raises ModelCorrupt.
        """
        self.check_size(digest, size)
        path = self.path(digest)
        try:
            facts = facts_of(path)
            verdict = self._verdicts.find(digest, facts)
            if verdict is None:
                logger.info("Verifying %s again: it is new here, or its time has changed.", path.name)
                verdict = _hash(path) == digest
                self.record(digest, facts, is_sound=verdict)
        except OSError as error:
            raise self._corrupt(digest, f"cannot be read ({error.strerror})") from error
        if not verdict:
            raise self._corrupt(digest, "is damaged: its content has another digest")

    def record(self, digest: Digest, facts: BlobFacts, *, is_sound: bool = True) -> None:
        """Remember what was found of a file that was as `facts` say."""
        self._verdicts.record(digest, facts, is_sound=is_sound)

    def record_chunks(self, digest: Digest, sums: ChunkSums, names: tuple[str, ...] = ()) -> None:
        """Keep a verified file's checksums, and the models it was fetched for; failing harms only repairs."""
        known = self.chunks(digest)
        told = tuple(dict.fromkeys([*(known.names if known else ()), *names]))
        with contextlib.suppress(OSError):
            self._chunks.mkdir(parents=True, exist_ok=True)
            content = replace(sums, names=told).to_bytes()
            write_atomically(self._chunks / digest.file_name, content, self._partials, is_durable=False)

    def chunks(self, digest: Digest) -> ChunkSums | None:
        """The checksums of a file as it was verified, if they were kept."""
        try:
            return ChunkSums.from_bytes((self._chunks / digest.file_name).read_bytes())
        except OSError:
            return None

    def remove(self, digest: Digest) -> bool:
        """Delete a blob that nothing needs; a file that the system holds open stays, and is logged.

        Of one that is used where another program keeps it, only the reference goes.
        """
        try:
            self.places.own(digest).unlink(missing_ok=True)
            self.places.references.path(digest).unlink(missing_ok=True)
        except OSError as error:
            logger.warning("%s could not be removed: %s", digest.file_name, error.strerror)
            return False
        self._verdicts.forget(digest)
        with contextlib.suppress(OSError):
            (self._chunks / digest.file_name).unlink(missing_ok=True)
        return True

    def unchanged(self, address: str, version: str | None, size: int | None) -> Blob | None:
        """What an address once gave, if it is here and the server says of it what it said then."""
        found = self.addresses.find(address)
        if found is None or not found.is_still(version, size) or not self.has(found.digest):
            return None
        return Blob(found.digest, found.size)

    def all(self) -> Iterator[tuple[Digest, float]]:
        """Every blob and every reference to one, with the seconds since it was written."""
        now = time.time()
        for entry in (*_entries(self._blobs), *_entries(self.places.references.folder)):
            with contextlib.suppress(InvalidRequest, OSError):
                yield Digest.parse(entry.name), now - entry.stat().st_mtime

    def leftovers(self) -> Iterator[tuple[Path, int, float]]:
        """What writers that died have left, with its size and age; not what a later download can go on with."""
        resumable = {status.key for status in self.partials.all() if status.age_seconds < PARTIAL_MAX_AGE_SECONDS}
        now = time.time()
        for entry in _entries(self._partials):
            if owner_of(entry.name) not in resumable:
                with contextlib.suppress(OSError):
                    status = entry.stat()
                    yield Path(entry), status.st_size, now - status.st_mtime

    def remove_stale_partials(self, min_age_seconds: float) -> None:
        """Delete those of the leftovers that nobody can be writing any more, and the files of locks of downloads."""
        for path, _, age in self.leftovers():
            if age >= min_age_seconds:
                with contextlib.suppress(OSError):
                    path.unlink()
        now = time.time()
        for entry in _entries(self._locks):
            if is_key(entry.name.removesuffix(LOCK_SUFFIX)):
                with contextlib.suppress(OSError):
                    if now - entry.stat().st_mtime >= min_age_seconds:
                        clear_unless_held(Path(entry))

    def _missing(self, digest: Digest) -> ModelCorrupt:
        return self._corrupt(digest, "is missing from the model store")

    def _corrupt(self, digest: Digest, what: str, **facts: Fact) -> ModelCorrupt:
        """The error for a file of the store, or for one that is used where another program keeps it.

        The place of that one is for the log: people on other machines may read the error.
        """
        reference = self.places.reference(digest)
        if reference is None:
            return ModelCorrupt(f"The file of {digest} {what}.", digest=str(digest), **facts)
        state = reference.state if reference.state != "there" else "changed"
        if (digest, state) not in self._told:
            self._told.add((digest, state))
            logger.warning("%s is used where another program keeps it, and %s there: %s", digest, state, reference.path)
        return ModelCorrupt(
            f"The file of {digest} is used where another program keeps it, and is {state} there. "
            "`puna adopt --status` on the daemon's machine names it: put it back, or remove the model and get it anew.",
            digest=str(digest),
            in_place=True,
            **facts,
        )

    def adopt(self, partial: Path, digest: Digest) -> Blob:
        """Give a verified file its final name."""
        with writing(self._root):
            self._blobs.mkdir(parents=True, exist_ok=True)
            partial.replace(self.places.own(digest))
            sync_folder(self._blobs)
            self.places.references.path(digest).unlink(missing_ok=True)
            facts = facts_of(self.places.own(digest))
        self._verdicts.record(digest, facts, is_sound=True)
        return Blob(digest, facts.size)

    def take(self, file: Path) -> Blob:
        """Make a blob of a file that was written elsewhere on the store's disk: hash, flush and move it. Blocks."""
        digest = _hash(file)
        with writing(self._root), file.open("rb+") as written:
            os.fsync(written.fileno())
        return self.adopt(file, digest)


def _hash(path: Path) -> Digest:
    hasher = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while piece := file.read(PIECE_BYTES):
            hasher.update(piece)
    return Digest(hasher.hexdigest())


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if entry.is_file(follow_symlinks=False)]
    except OSError:
        return []
