"""The segments that have a file, and what is under way between them and the disk."""

from __future__ import annotations

from collections.abc import Iterable

from runner.worker.prefix_cache import Segment
from runner.worker.prefix_files import FileEvent, Header, PrefixFiles


class Shelf:
    """Maps files to segments, on the engine thread. Without files it is empty and stays so."""

    def __init__(self, files: PrefixFiles | None) -> None:
        self._files = files
        self._by_key: dict[bytes, Segment] = {}
        """Segments whose file exists, or is being written."""
        self._reading: set[bytes] = set()

    def open(self) -> list[tuple[bytes, Header]]:
        """What is on disk, parents before children; each is to be answered with `place` or `refuse`. Blocks."""
        return [] if self._files is None else self._files.open()

    @property
    def has_any(self) -> bool:
        return bool(self._by_key)

    def place(self, key: bytes, segment: Segment) -> None:
        segment.is_on_disk = True
        self._by_key[key] = segment

    def refuse(self, key: bytes) -> None:
        """A file that belongs nowhere, or is not what its name says."""
        if self._files is not None:
            self._files.remove(key)

    def find(self, key: bytes) -> Segment | None:
        return self._by_key.get(key)

    def write(self, segment: Segment, root: bytes) -> None:
        """Have a segment's state written, unless it is on disk."""
        if self._files is None or segment.is_on_disk or segment.state is None or segment.parent is None:
            return
        header = Header(root, segment.parent.key, segment.start, segment.tokens)
        if self._files.write(segment.key, header, segment.state):
            self._by_key[segment.key] = segment

    def fetch(self, segments: Iterable[Segment]) -> None:
        """Have states read; they come through `take`."""
        for segment in segments:
            if self._files is not None and segment.key not in self._reading:
                self._reading.add(segment.key)
                self._files.read(segment.key)

    def take(self, event: FileEvent) -> Segment | None:
        """The segment whose file was read, or is not there; what was written is noted."""
        self._reading.discard(event.key)
        segment = self._by_key.get(event.key)
        if segment is not None and event.is_written:
            segment.is_on_disk = True
        return None if event.is_written else segment

    def touch(self, segments: Iterable[Segment]) -> None:
        """Note that files were used: give parents before their children."""
        keys = tuple(segment.key for segment in segments if segment.is_on_disk)
        if self._files is not None and keys:
            self._files.touch(keys[::-1])

    def lose(self, segment: Segment) -> None:
        """A segment's file is of no use."""
        segment.is_on_disk = False
        if self._by_key.pop(segment.key, None) is not None:
            self.refuse(segment.key)
