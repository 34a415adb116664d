"""Files under way: each with a journal beside it, so that whoever comes next goes on where the last one was."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from registry.byte_ranges import ByteRanges, Range
from registry.digest import Digest
from registry.journal import (
    FLUSHED_EVENT,
    MARK_EVENT,
    FileFacts,
    JournalReader,
    JournalState,
    dropped_event,
    facts_event,
    to_line,
    version_event,
    whole_journal,
    with_name,
    without,
    written_event,
    written_older_event,
)
from registry.locks import writing

JOURNAL_SUFFIX = ".journal"
PACKED_SUFFIX = ".packed"
MAX_AGE_SECONDS = 30 * 24 * 3600.0
"""A partial that nobody has touched for so long is taken for forgotten."""

_FLUSH_BYTES = 256 << 20
_FLUSH_SECONDS = 5.0


def key_of_digest(digest: Digest) -> str:
    """The name of the partial of a file whose digest is known."""
    return digest.file_name


def key_of_address(address: str) -> str:
    """The name of the partial of a file of which only the address is known."""
    return f"address-{hashlib.sha256(address.encode()).hexdigest()}"


def key_of_packed(key: str, start: int, place: int) -> str:
    """The name of the partial that holds packed what belongs at `start` of another, and lies at `place` at its source.

    It belongs to that other one: whoever may write the one may write both, and they go together.
    """
    return f"{key}.{start}-{place}{PACKED_SUFFIX}"


def owner_of(file_name: str) -> str:
    """The key of the partial that a file in the folder belongs to."""
    name = file_name.removesuffix(JOURNAL_SUFFIX)
    return name.partition(".")[0] if name.endswith(PACKED_SUFFIX) else name


@dataclass(frozen=True, slots=True)
class PartialStatus:
    """A partial as it is found on disk."""

    key: str
    facts: FileFacts
    completed: int
    occupied: int
    """Bytes that it takes on the disk."""
    age_seconds: float


class Partials:
    """The folder of files under way. Every method blocks."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, key: str) -> Path:
        return self._folder / key

    def open(self, key: str, facts: FileFacts, name: str | None = None) -> Partial:
        """Take up a partial, or begin it; only whoever holds the key's lock may. Raises DiskFull or StoreReadOnly."""
        path = self.path(key)
        with writing(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            return Partial(path, self._state(path, facts, name))

    def look(self, key: str) -> JournalReader:
        """Follows a partial that another process may be writing."""
        return JournalReader(_journal_path(self.path(key)))

    def completed(self, key: str) -> int:
        """How many bytes are there; of those that are there packed, an estimate."""
        reader = self.look(key)
        return reader.state.done.total + self._ahead(key, reader.state) if reader.refresh() else 0

    def all(self) -> Iterator[PartialStatus]:
        """Every partial that can be gone on with, in the order of their keys."""
        for journal in sorted(self._folder.glob(f"*{JOURNAL_SUFFIX}")):
            key = journal.name.removesuffix(JOURNAL_SUFFIX)
            if key != owner_of(key):
                continue
            reader = JournalReader(journal)
            with contextlib.suppress(OSError):
                status = self.path(key).stat()
                if reader.refresh():
                    age = max(0.0, time.time() - max(status.st_mtime, journal.stat().st_mtime))
                    occupied = _occupied(status) + sum(self._occupied(one) for one in self._packed(key))
                    completed = reader.state.done.total + self._ahead(key, reader.state)
                    yield PartialStatus(key, reader.state.facts, completed, occupied, age)

    def remove(self, key: str) -> None:
        """Forget a partial; only whoever holds the key's lock may."""
        with writing(self._folder):
            for one in (*self._packed(key), key):
                self.path(one).unlink(missing_ok=True)
                _journal_path(self.path(one)).unlink(missing_ok=True)

    def _packed(self, key: str) -> list[str]:
        """Those that belong to another."""
        return [path.name for path in self._folder.glob(f"{key}.*{PACKED_SUFFIX}")]

    def _ahead(self, key: str, state: JournalState) -> int:
        """How much of a file is there packed alone; what is packed takes about the room that it unpacks to."""
        ahead = 0
        for one in self._packed(key):
            reader = self.look(one)
            if reader.refresh():
                start = _start_of_packed(one)
                end = min(start + (reader.state.facts.size or 0), state.facts.size or start)
                unpacked = (end - start) - sum(stop - begin for begin, stop in state.done.missing(start, end))
                ahead += max(0, min(reader.state.done.total, end - start) - unpacked)
        return ahead

    def _occupied(self, key: str) -> int:
        try:
            return _occupied(self.path(key).stat())
        except OSError:
            return 0

    def _state(self, path: Path, facts: FileFacts, name: str | None) -> JournalState:
        reader = JournalReader(_journal_path(path))
        state = reader.state if reader.refresh() else JournalState()
        known = state.facts
        is_same = facts.size is None or known.size is None or facts.size == known.size
        if not path.exists() or not state.has_facts or not is_same:
            state = JournalState()
        names = state.facts.names
        state.facts = with_name(replace(facts, size=facts.size or state.facts.size, names=names), name)
        length = path.stat().st_size if path.exists() else 0
        for ranges in (state.done, state.flushed, state.marked, state.older):
            ranges.remove(length, 1 << 62)
        return state


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
        self._journal_file = _journal_path(path)
        self.drops = 0
        """How often bytes were found not to be trusted, counted for those who have read them."""
        self._unflushed = 0
        self._flushed_at = time.monotonic()
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

    def read(self, offset: int, count: int) -> bytes:
        """At most `count` bytes from `offset`."""
        with self._using():
            if hasattr(os, "pread"):
                return os.pread(self._descriptor, count, offset)
            with self._lock:
                os.lseek(self._descriptor, offset, os.SEEK_SET)
                return os.read(self._descriptor, count)

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

    def flush_if_due(self) -> None:
        """Now and then bring what is written to the disk itself, so that a loss of power takes little."""
        is_due = self._unflushed >= _FLUSH_BYTES or time.monotonic() - self._flushed_at >= _FLUSH_SECONDS
        if is_due and self._unflushed:
            self.flush()

    def flush(self) -> None:
        """Bring what is written to the disk itself."""
        with writing(self._path.parent), self._using():
            with self._lock:
                self._note(MARK_EVENT)
                self._unflushed = 0
            os.fsync(self._descriptor)
            with self._lock:
                self._flushed_at = time.monotonic()
                self._note(FLUSHED_EVENT)

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
            os.ftruncate(self._descriptor, self.completed)
            os.fsync(self._descriptor)
        self.close()

    def forget(self) -> None:
        """Remove what is left of it, with its journal and what belongs to it."""
        self.close()
        belongings = self._path.parent.glob(f"{self._path.name}.*{PACKED_SUFFIX}*")
        for path in (*belongings, self._path, self._journal_file):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def _write_at(self, offset: int, content: bytes | bytearray | memoryview) -> None:
        rest = memoryview(content)
        while rest:
            if hasattr(os, "pwrite"):
                count = os.pwrite(self._descriptor, rest, offset)
            else:
                with self._lock:
                    os.lseek(self._descriptor, offset, os.SEEK_SET)
                    count = os.write(self._descriptor, rest)
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


def _start_of_packed(key: str) -> int:
    """Where in the file that it belongs to."""
    number = key.removesuffix(PACKED_SUFFIX).rpartition(".")[2].partition("-")[0]
    return int(number) if number.isdecimal() else 0


def _occupied(status: os.stat_result) -> int:
    return int(getattr(status, "st_blocks", status.st_size // 512)) * 512


def _journal_path(path: Path) -> Path:
    return path.with_name(path.name + JOURNAL_SUFFIX)
