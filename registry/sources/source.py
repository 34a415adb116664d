"""Takes a file's bytes from its start on, as sources give them that cannot be read from the middle."""

from __future__ import annotations

from registry.errors import SourceError
from registry.partial import Partial


class Sink:
    """Writes one file, or the piece of one from `start` on, into its partial, and no more bytes than it has.

    What is there already is passed over.

    `write` and `check` block: call them in a thread.
    """

    def __init__(self, partial: Partial, size: int, start: int = 0) -> None:
        self.size = size
        self._partial = partial
        self._start = start
        self._position = 0

    @property
    def start(self) -> int:
        """Where in the partial its first byte belongs."""
        return self._start

    @property
    def present(self) -> int:
        """How many of its bytes are in the partial, whoever wrote them."""
        end = self._start + self.size
        return self.size - sum(stop - begin for begin, stop in self._partial.missing(self._start, end))

    @property
    def remaining(self) -> int:
        return self.size - self._position

    def write(self, piece: bytes) -> None:
        """Raises SourceError for bytes beyond the file's size, DiskFull or StoreReadOnly."""
        if len(piece) > self.remaining:
            raise SourceError(f"The source sends more than the file's {self.size} bytes.")
        begun = self._start + self._position
        self._position += len(piece)
        for start, end in self._partial.missing(begun, begun + len(piece)):
            self._partial.write(start, piece[start - begun : end - begun])

    def check(self) -> None:
        """The file is complete; raises SourceError."""
        if self.remaining:
            raise SourceError(f"The source sent {self._position} bytes of a file of {self.size}.")
