"""A blob on its way into the store: written, hashed meanwhile, and named only when it is what was expected."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from registry.digest import Digest
from registry.errors import DigestMismatch
from registry.locks import writing

if TYPE_CHECKING:
    from registry.blobs import Blob, Blobs


class BlobWriter:
    """Bytes on their way to becoming a blob; a context manager that leaves nothing behind unless committed.

    Every method blocks; they may be called from different threads, one after the other.
    """

    def __init__(self, blobs: Blobs, root: Path, partial: Path, expected: Digest | None) -> None:
        self._blobs = blobs
        self._root = root
        self._partial = partial
        self._expected = expected
        self._hash = hashlib.sha256()
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        self._is_over = False
        self.size = 0
        """Bytes written so far."""

    def __enter__(self) -> BlobWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    def write(self, chunk: bytes) -> None:
        """Raises DiskFull or StoreReadOnly."""
        with self._lock:
            with writing(self._root):
                _write_all(self._open(), chunk)
            self._hash.update(chunk)
            self.size += len(chunk)

    def verify(self) -> Digest:
        """The digest of what was written. Raises DigestMismatch when another one is expected."""
        actual = Digest(self._hash.hexdigest())
        if self._expected is not None and actual != self._expected:
            raise DigestMismatch(str(self._expected), str(actual))
        return actual

    def commit(self) -> Blob:
        """Verify, flush to disk and give the file its name. Raises DigestMismatch."""
        with self._lock:
            descriptor = self._open()
            actual = self.verify()
            with writing(self._root):
                os.fsync(descriptor)
            self._close()
            self._is_over = True
            return self._blobs.adopt(self._partial, actual)

    def abort(self) -> None:
        """Drop what was written; does nothing after `commit`. A write still under way in a thread fails."""
        with self._lock:
            if self._is_over:
                return
            self._is_over = True
            self._close()
            with contextlib.suppress(OSError):
                self._partial.unlink(missing_ok=True)

    def _open(self) -> int:
        if self._is_over:
            raise ValueError("This blob is not being written any more.")
        if self._descriptor is None:
            with writing(self._root):
                self._partial.parent.mkdir(parents=True, exist_ok=True)
                flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)
                self._descriptor = os.open(self._partial, flags, 0o644)
        return self._descriptor

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _write_all(descriptor: int, chunk: bytes) -> None:
    rest = memoryview(chunk)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
