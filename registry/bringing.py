"""Brings files of this machine into the store under their digest, without a copy where that can be."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from registry.atomic_write import write_atomically
from registry.blobs import PIECE_BYTES, Blobs
from registry.digest import Digest
from registry.errors import DigestMismatch, ModelInvalid
from registry.linking import Way, clone, hard_link
from registry.references import Reference
from registry.verdicts import BlobFacts

SMALL_BYTES = 1 << 20
"""Texts and configurations are copied: they cost nothing, and a model can be shown when its weights are gone."""


@dataclass(frozen=True, slots=True)
class HashedFile:
    """A file elsewhere, and what was found when it was hashed."""

    path: Path
    """Absolute, without symbolic links."""
    digest: Digest
    size: int
    modified_ns: int

    def check_unchanged(self) -> None:
        """Raises ModelInvalid when the file is not as it was when it was hashed."""
        try:
            status = self.path.stat()
        except OSError as error:
            raise _unreadable(self.path, error) from error
        if (status.st_size, status.st_mtime_ns) != (self.size, self.modified_ns):
            raise ModelInvalid(f"{self.path} was changed while it was looked at; try again when nobody writes it.")


def hash_file(path: Path, expected: Digest | None = None, tell: Callable[[int, int], None] | None = None) -> HashedFile:
    """Read a whole file; `tell` hears bytes read and bytes in all. Blocks.

    Raises DigestMismatch when the content is not the expected one, ModelInvalid when the file cannot be read.
    """
    hasher = hashlib.sha256()
    try:
        path = path.resolve(strict=True)
        status = path.stat()
        done = 0
        with path.open("rb", buffering=0) as file:
            while piece := file.read(PIECE_BYTES):
                hasher.update(piece)
                done += len(piece)
                if tell is not None:
                    tell(done, status.st_size)
    except OSError as error:
        raise _unreadable(path, error) from error
    found = HashedFile(path, Digest(hasher.hexdigest()), status.st_size, status.st_mtime_ns)
    found.check_unchanged()
    if expected is not None and found.digest != expected:
        raise DigestMismatch(str(expected), str(found.digest))
    return found


def copy_in(blobs: Blobs, file: HashedFile, tell: Callable[[int, int], None] | None = None) -> None:
    """Copy a file into the store, verified on the way; `tell` hears bytes copied and bytes in all. Blocks."""

    def pieces() -> Iterator[bytes]:
        done = 0
        with file.path.open("rb", buffering=0) as read:
            while piece := read.read(PIECE_BYTES):
                done += len(piece)
                if tell is not None:
                    tell(done, file.size)
                yield piece

    try:
        blobs.add(pieces(), file.digest)
    except DigestMismatch:
        file.check_unchanged()
        raise ModelInvalid(f"{file.path} reads differently each time; its disk may be failing.") from None


def link_in(blobs: Blobs, root: Path, file: HashedFile) -> Way | None:
    """Make a file one of the store's blobs without copying it; how, or None when it is one already.

    It is cloned, else linked, else a reference to it is kept; small ones are copied. To be called under
    the store's lock, so that nobody removes what no manifest names yet. Raises ModelInvalid when the file
    has changed since it was hashed.
    """
    if blobs.is_sound(file.digest, file.size):
        return None
    if file.size <= SMALL_BYTES:
        copy_in(blobs, file)
        return Way.COPY
    partials = root / "partials"
    partials.mkdir(parents=True, exist_ok=True)
    partial = partials / f"{file.digest.file_name}.{secrets.token_hex(8)}"
    try:
        is_clone = clone(file.path, partial)
        is_link = not is_clone and hard_link(file.path, partial)
        file.check_unchanged()
        if is_clone or is_link:
            blobs.adopt(partial, file.digest)
            return Way.CLONE if is_clone else Way.HARD_LINK
        _refer(blobs, partials, file)
        return Way.REFERENCE
    finally:
        # Still there when something failed, and when the blob was a link to the very same file.
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _refer(blobs: Blobs, partials: Path, file: HashedFile) -> None:
    blobs.remove(file.digest)
    record = blobs.places.references.path(file.digest)
    record.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(record, Reference(file.path, file.size).to_bytes(), partials)
    blobs.record(file.digest, BlobFacts(file.size, file.modified_ns))


def _unreadable(path: Path, error: OSError) -> ModelInvalid:
    return ModelInvalid(f"{path} cannot be read ({error.strerror}).")
