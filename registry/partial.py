"""One file under way: its bytes, and beside them the journal that says which of them are there."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from registry.boot import boot
from registry.byte_ranges import ByteRanges, Range
from registry.journal import (
    FLUSHED_EVENT,
    MARK_EVENT,
    JournalState,
    dropped_event,
    facts_event,
    to_line,
    version_event,
    whole_journal,
    without,
    written_event,
    written_older_event,
)
from registry.locks import writing
from registry.partial_keys import journal_path, packed_files

_FLUSH_BYTES = 32 << 20
"""Little enough that the disk is busy while more comes, and that not much is left to wait for at the end."""
_FLUSH_SECONDS = 5.0
_STEP_BYTES = 64 << 10
"""For more at once Linux takes large runs of free memory, which a virtual machine must get from its host first.

Measured on one: 200 MB took 0.05 s of the processor in such steps, and 0.15 to 0.7 s in larger ones.
"""


class Partial:
    """One file under way, in the hands of its only writer. Methods block and may be called from several threads."""

    def __init__(self, path: Path, state: JournalState) -> None:
        self._path = path
        self._state = state
        self._doubtful = without(state.done, state.flushed)
        """What an earlier process wrote, and a loss of power since may have taken."""
        self._lock = threading.Lock()
        self._is_idle = threading.Condition(self._lock)
        self._users = 0
        """Threads that are using the descriptor, which must not be closed under them."""
        self._journal_file = journal_path(path)
        self.drops = 0
        """How often bytes were found not to be trusted, counted for those who have read them."""
        self._unflushed = 0
        self._flushed_at = time.monotonic()
        self._flushing = threading.Lock()
        """What is marked in the journal is what the one flush under way was begun with."""
        if state.facts.digest is None and (state.boot is None or state.boot != boot()):
            # Nothing would tell that a loss of power has taken some of it.
            for start, end in self._doubtful:
                state.apply(dropped_event(start, end))
            self._doubtful.clear()
        state.boot = boot()
        self._rewrite_journal()
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644)
        self._journal = os.open(self._journal_file, os.O_WRONLY | os.O_APPEND | getattr(os, "O_BINARY", 0))
        self._is_open = True

    @property
    def path(self) -> Path:
        return self._path

    @property
    def size(self) -> int | None:
        return self._state.facts.size

    @property
    def completed(self) -> int:
        """How many bytes are there, as the journal knows already."""
        return self._state.done.total

    @property
    def prefix(self) -> int:
        """How many are there without a gap from the start."""
        with self._lock:
            return self._state.done.prefix

    @property
    def version(self) -> str | None:
        return self._state.version

    @property
    def is_complete(self) -> bool:
        return self.size is not None and self.completed == self.size

    @property
    def has_doubtful(self) -> bool:
        """Whether some of it is of an earlier version of the file, or may have been lost with the power."""
        with self._lock:
            return self._state.older.total + self._doubtful.total > 0

    def missing(self, start: int = 0, end: int | None = None) -> list[Range]:
        """The parts that are not there; up to the file's end its size must be known."""
        end = self.size if end is None else end
        assert end is not None, "the size of this file is not known yet"
        with self._lock:
            return self._state.done.missing(start, end)

    def set_size(self, size: int) -> None:
        """Note what the source says, when nothing was known."""
        with self._using(), self._lock:
            self._state.facts = replace(self._state.facts, size=size)
            self._note(facts_event(self._state.facts))

    def write(self, offset: int, content: bytes | bytearray | memoryview, version: str | None = None) -> None:
        """Write bytes and note that they are there; those of another version than the present one are doubtful.

        Raises DiskFull or StoreReadOnly.
        """
        if not content:
            return
        end = offset + len(content)
        with writing(self._path.parent), self._using():
            self._write_at(offset, content)
            with self._lock:
                is_older = version is not None and version != self._state.version
                self._note(written_older_event(offset, end) if is_older else written_event(offset, end))
                self._doubtful.remove(offset, end)
                self._unflushed += len(content)

    def take_over(self, file: Path) -> bool:
        """Let another file's content become this one's, which must be empty; whether that could be done."""
        with self._is_idle:
            self._check_open()
            self._is_idle.wait_for(lambda: self._users == 0)
            try:
                descriptor = os.open(file, os.O_RDWR | getattr(os, "O_BINARY", 0))
            except OSError:
                return False
            try:
                file.replace(self._path)
            except OSError:
                os.close(descriptor)
                return False
            os.close(self._descriptor)
            self._descriptor = descriptor
            return True

    def note(self, start: int, end: int) -> None:
        """Bytes are there without having been written by this process."""
        with self._using(), self._lock:
            self._note(written_event(start, end))

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Fill a buffer, as far as there is something, with the bytes from `offset`; returns how many came."""
        with self._using():
            if hasattr(os, "preadv"):
                return os.preadv(self._descriptor, (buffer,), offset)
            with self._lock:
                os.lseek(self._descriptor, offset, os.SEEK_SET)
                piece = os.read(self._descriptor, len(buffer))
            buffer[: len(piece)] = piece
            return len(piece)

    def read(self, offset: int, count: int) -> bytes:
        """At most `count` bytes from `offset`."""
        buffer = bytearray(count)
        return bytes(buffer[: self.read_into(memoryview(buffer), offset)])

    def drop(self, start: int, end: int) -> None:
        """Trust some bytes no more."""
        with self._using(), self._lock:
            self.drops += 1
            self._note(dropped_event(start, end))

    def drop_all(self) -> None:
        for start, end in self.done():
            self.drop(start, end)

    def drop_doubtful(self) -> None:
        """Trust only what is of the present version and was written by this process, or is on the disk for certain."""
        with self._lock:
            doubtful = [*self._state.older, *self._doubtful]
            self._doubtful.clear()
        for start, end in doubtful:
            self.drop(start, end)

    def done(self) -> ByteRanges:
        with self._lock:
            return self._state.done.copy()

    def begin_version(self, version: str | None) -> None:
        """What is written from here on is of this version of the file."""
        with self._using(), self._lock:
            if version != self._state.version:
                self._note(version_event(version))

    def flush_if_due(self) -> bool:
        """Flush when much has been written since, or some long ago; whether it was so.

        A loss of power takes little then, and little is left to wait for at the end.
        """
        with self._lock:
            is_long_ago = time.monotonic() - self._flushed_at >= _FLUSH_SECONDS
            is_due = self._unflushed >= _FLUSH_BYTES or (is_long_ago and self._unflushed > 0)
        return is_due and self.flush()

    def flush(self) -> bool:
        """Bring what is written to the disk itself; whether there was anything."""
        with writing(self._path.parent), self._using(), self._flushing:
            with self._lock:
                if self._unflushed == 0:
                    return False
                self._note(MARK_EVENT)
                self._unflushed = 0
            _sync(self._descriptor)
            with self._lock:
                self._flushed_at = time.monotonic()
                self._note(FLUSHED_EVENT)
        return True

    def close(self) -> None:
        """Leave the partial for the next one. What other threads are writing is written first."""
        with self._is_idle:
            was_open, self._is_open = self._is_open, False
            self._is_idle.wait_for(lambda: self._users == 0)
        if was_open:
            os.close(self._descriptor)
            os.close(self._journal)

    def finish(self) -> None:
        """Close it with everything on the disk; what is left of it goes when `forget` is called."""
        with writing(self._path.parent), self._using():
            if os.fstat(self._descriptor).st_size != self.completed:
                os.ftruncate(self._descriptor, self.completed)
            os.fsync(self._descriptor)
        self.close()

    def forget(self) -> None:
        """Remove what is left of it, with its journal and what belongs to it."""
        self.close()
        packed = packed_files(self._path.parent, self._path.name)
        for path in (*packed, *map(journal_path, packed), self._path, self._journal_file):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def _write_at(self, offset: int, content: bytes | bytearray | memoryview) -> None:
        rest = memoryview(content)
        while rest:
            piece = rest[:_STEP_BYTES]
            if hasattr(os, "pwrite"):
                count = os.pwrite(self._descriptor, piece, offset)
            else:
                with self._lock:
                    os.lseek(self._descriptor, offset, os.SEEK_SET)
                    count = os.write(self._descriptor, piece)
            offset, rest = offset + count, rest[count:]

    @contextlib.contextmanager
    def _using(self) -> Iterator[None]:
        with self._lock:
            self._check_open()
            self._users += 1
        try:
            yield
        finally:
            with self._is_idle:
                self._users -= 1
                self._is_idle.notify_all()

    def _check_open(self) -> None:
        if not self._is_open:
            raise ValueError("This partial is not being written any more.")

    def _note(self, event: str) -> None:
        """Write an event down, then hold it true; the lock is held, and the descriptors are open."""
        line = to_line(event)
        with writing(self._path.parent):
            written = os.write(self._journal, line)
            if written < len(line):
                # Nobody would read what came behind half a line.
                os.ftruncate(self._journal, os.lseek(self._journal, 0, os.SEEK_END) - written)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._state.apply(event)

    def _rewrite_journal(self) -> None:
        temporary = self._journal_file.with_name(f"{self._path.name}.{secrets.token_hex(8)}")
        try:
            temporary.write_bytes(whole_journal(self._state))
            temporary.replace(self._journal_file)
        finally:
            temporary.unlink(missing_ok=True)


def _sync(descriptor: int) -> None:
    # The times of the file may wait; its length does not.
    if hasattr(os, "fdatasync"):
        os.fdatasync(descriptor)
    else:
        os.fsync(descriptor)
