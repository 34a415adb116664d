"""Where the files of a model come from: what every kind of source does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from registry.blobs import BlobWriter
from registry.catalog import CatalogFile, Role
from registry.errors import SourceError


class Sink:
    """Takes one file's bytes on their way to the store, and no more of them than the file has.

    `write`, `restart` and `check` block: call them in a thread.
    """

    def __init__(self, file: CatalogFile, writer: BlobWriter, notice: Callable[[str], None]) -> None:
        self.size = file.size
        self.notice = notice
        """Tells whoever waits one line, such as that another source is tried."""
        self._writer = writer

    @property
    def remaining(self) -> int:
        return self.size - self._writer.size

    def restart(self) -> None:
        """Forget everything, to begin again."""
        self._writer.restart()

    def write(self, piece: bytes) -> None:
        """Raises SourceError for bytes beyond the file's size, DiskFull or StoreReadOnly."""
        if len(piece) > self.remaining:
            raise SourceError(f"The source sends more than the file's {self.size} bytes.")
        self._writer.write(piece)

    def check(self) -> None:
        """The file is complete and the right one; raises SourceError or DigestMismatch."""
        if self.remaining:
            raise SourceError(f"The source sent {self._writer.size} bytes of a file of {self.size}.")
        self._writer.verify()


class Source(Protocol):
    """One place that has the files of one model."""

    @property
    def label(self) -> str:
        """As people are told of it, without anything secret."""

    async def fetch(self, role: Role, sink: Sink) -> None:
        """Write a file into the sink and check it.

        Raises SourceError (also SourceUnreachable) or DigestMismatch when another source may do better.
        """
