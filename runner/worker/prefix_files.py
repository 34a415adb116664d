"""The part of the prefix cache that outlives the process: one file for each segment.

    <directory>/<fingerprint>/<key>.prefix
    magic · length of header · header (msgpack) · state · checksum of all before (XXH3, 128 bits)

The fingerprint stands for the weights and the form of the engine's states, the key for the tokens
and all before them, so a file found under its name fits. What is damaged or does not belong here is
removed; the checksum finds damage, not malice, since who can write here can write anything of Puna's.
All reading and writing happens on one background thread; nothing here blocks the engine.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import xxhash

logger = logging.getLogger(__name__)

_MAGIC = b"PUNAKV\x00\x02"
"""Its last byte is the version of the format."""
_HEADER_LENGTH = struct.Struct("<I")
_LONGEST_HEADER = 1 << 20
_CHECKSUM_BYTES = 16
_SUFFIX = ".prefix"
_MOST_UNWRITTEN_BYTES = 512 << 20
"""States that may wait for the disk; what comes on top is not written."""
_KEEP_FREE_BYTES = 1 << 30
"""Disk space that is left alone."""
_SHRINK_TO = 0.9
"""When the budget is spent, so much of it is kept, so that not every file written costs a look at all of them."""


class Header(msgspec.Struct, frozen=True):
    """What a segment's file says of itself."""

    root: bytes
    parent: bytes
    start: int
    tokens: list[int]


@dataclass(frozen=True, slots=True)
class FileEvent:
    """What became of a file: written, or read (`state`); when there is neither, there is no file, or none any more."""

    key: bytes
    state: memoryview | None = None
    is_written: bool = False


class PrefixFiles:
    """The files of one model. `post` is called on the background thread with what happened.

    The budget is that of the whole directory, which workers of other models may use at the same time.
    """

    def __init__(self, directory: Path, fingerprint: str, budget_bytes: int, post: Callable[[FileEvent], None]) -> None:
        self._directory = directory
        digest = hashlib.blake2b(fingerprint.encode(), digest_size=16).hexdigest()
        self._folder = directory / digest
        self._budget = budget_bytes
        self._post = post
        self._changed = threading.Condition()
        self._reads: deque[bytes] = deque()
        self._writes: deque[tuple[bytes, Header, memoryview]] = deque()
        self._touches: deque[tuple[bytes, ...]] = deque()
        self._unwritten_bytes = 0
        self._is_busy = False
        self._is_broken = False
        self._used = 0
        self._thread = threading.Thread(target=self._work, name="prefix-files", daemon=True)

    def open(self) -> list[tuple[bytes, Header]]:
        """Make the folder, list what is in it, parents before children, and start working. Blocks.

        Never fails: with a folder that cannot be used there is nothing, and nothing is written.
        """
        found: list[tuple[bytes, Header]] = []
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._folder.mkdir(exist_ok=True, mode=0o700)
            found = list(self._entries())
            self._used = sum(size for _, size, _ in self._all_files())
        except OSError as error:
            self._break(error)
        self._thread.start()
        return sorted(found, key=lambda entry: entry[1].start)

    def read(self, key: bytes) -> None:
        """Fetch a segment's state; it comes as an event."""
        with self._changed:
            self._reads.append(key)
            self._changed.notify_all()

    def write(self, key: bytes, header: Header, state: memoryview) -> bool:
        """Have a segment written, what became of it comes as an event; False when the disk is too far behind."""
        with self._changed:
            if self._is_broken or self._unwritten_bytes + len(state) > min(_MOST_UNWRITTEN_BYTES, self._budget):
                return False
            self._unwritten_bytes += len(state)
            self._writes.append((key, header, state))
            self._changed.notify_all()
            return True

    def touch(self, keys: tuple[bytes, ...]) -> None:
        """Note that these were used, the last one of all most recently: give children before their parents."""
        with self._changed:
            self._touches.append(keys)
            self._changed.notify_all()

    def remove(self, key: bytes) -> None:
        """Remove a file that turned out to be of no use."""
        with contextlib.suppress(OSError):
            self._path(key).unlink(missing_ok=True)

    def flush(self, seconds: float) -> bool:
        """Wait until all is written, at most so long; whether it is."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while self._writes or self._is_busy:
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
        return True

    # --- the background thread --------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            with self._changed:
                self._is_busy = False
                self._changed.notify_all()
                while not (self._reads or self._writes or self._touches):
                    self._changed.wait()
                self._is_busy = True
                # Somebody waits for what is read; what is written can wait.
                read = self._reads.popleft() if self._reads else None
                touch = self._touches.popleft() if read is None and self._touches else None
                write = self._writes.popleft() if read is None and touch is None else None
            if read is not None:
                self._post(FileEvent(read, self._read(read)))
            elif touch is not None:
                self._touch(touch)
            elif write is not None:
                key, header, state = write
                self._post(FileEvent(key, is_written=self._write(key, header, state)))
                with self._changed:
                    self._unwritten_bytes -= len(state)

    def _read(self, key: bytes) -> memoryview | None:
        path = self._path(key)
        try:
            data = _content(path)
        except OSError:
            return None
        header_end = _header_end(data)
        checked = xxhash.xxh3_128_digest(data[:-_CHECKSUM_BYTES])
        if header_end is None or checked != data[-_CHECKSUM_BYTES:]:
            logger.warning("a file of the prefix cache is damaged and was removed")
            self.remove(key)
            return None
        return data[header_end:-_CHECKSUM_BYTES]

    def _write(self, key: bytes, header: Header, state: memoryview) -> bool:
        packed = msgspec.msgpack.encode(header)
        head = _MAGIC + _HEADER_LENGTH.pack(len(packed)) + packed
        checksum = xxhash.xxh3_128(head)
        checksum.update(state)
        size = len(head) + len(state) + _CHECKSUM_BYTES
        partial = self._folder / f"{key.hex()}.{os.getpid()}"
        try:
            if size > self._budget or shutil.disk_usage(self._folder).free < _KEEP_FREE_BYTES + size:
                return False
            with os.fdopen(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
                file.writelines((head, state, checksum.digest()))
            partial.replace(self._path(key))
        except OSError as error:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            self._break(error)
            return False
        self._used += size
        if self._used > self._budget:
            self._shrink()
        # Children were written after their parents, which must outlive them.
        self._touch((header.parent,))
        return True

    def _touch(self, keys: tuple[bytes, ...]) -> None:
        for key in keys:
            with contextlib.suppress(OSError):
                os.utime(self._path(key))

    def _shrink(self) -> None:
        """Remove what was used longest ago, of all models, until the budget is kept with room to spare.

        What goes of this model is told; other processes find out when they read.
        """
        files = sorted(self._all_files())
        self._used = sum(size for _, size, _ in files)
        for _, size, path in files:
            if self._used <= _SHRINK_TO * self._budget:
                return
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            self._used -= size
            if path.parent == self._folder and path.suffix == _SUFFIX:
                with contextlib.suppress(ValueError):
                    self._post(FileEvent(bytes.fromhex(path.stem)))

    # --- files ------------------------------------------------------------------------------------

    def _path(self, key: bytes) -> Path:
        return self._folder / f"{key.hex()}{_SUFFIX}"

    def _all_files(self) -> Iterator[tuple[float, int, Path]]:
        """Time of last use, size and path of every file of every model."""
        for folder in self._directory.iterdir():
            if folder.is_symlink() or not folder.is_dir():
                continue
            # Another process may remove what is looked at.
            with contextlib.suppress(OSError):
                for path in folder.iterdir():
                    with contextlib.suppress(OSError):
                        told = path.lstat()
                        yield told.st_mtime, told.st_size, path

    def _entries(self) -> Iterator[tuple[bytes, Header]]:
        for path in self._folder.iterdir():
            header = _read_header(path) if path.suffix == _SUFFIX else None
            with contextlib.suppress(ValueError):
                if header is not None:
                    yield bytes.fromhex(path.stem), header
                    continue
            if path.suffix == _SUFFIX or not _may_be_under_way(path):
                with contextlib.suppress(OSError):
                    path.unlink()

    def _break(self, error: OSError) -> None:
        if not self._is_broken:
            self._is_broken = True
            logger.warning("the prefix cache on disk cannot be written (%s); going on without", error.strerror)


def _read_header(path: Path) -> Header | None:
    """The header of a file whose size agrees with it; None for anything else."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0)), "rb") as file:
            fixed = len(_MAGIC) + _HEADER_LENGTH.size
            start = file.read(fixed)
            if len(start) < fixed or not start.startswith(_MAGIC):
                return None
            (length,) = _HEADER_LENGTH.unpack_from(start, len(_MAGIC))
            if length > _LONGEST_HEADER:
                return None
            header = msgspec.msgpack.decode(file.read(length), type=Header)
            has_state = os.fstat(file.fileno()).st_size > fixed + length + _CHECKSUM_BYTES
    except (OSError, msgspec.DecodeError):
        return None
    return header if has_state and header.tokens and header.start >= 0 else None


def _content(path: Path) -> memoryview:
    """All of a file, read straight to where it stays: memory that is new costs more than reading."""
    with path.open("rb", buffering=0) as file:
        return memoryview(file.readall())


def _header_end(data: memoryview) -> int | None:
    fixed = len(_MAGIC) + _HEADER_LENGTH.size
    if len(data) < fixed + _CHECKSUM_BYTES or data[: len(_MAGIC)] != _MAGIC:
        return None
    (length,) = _HEADER_LENGTH.unpack_from(data, len(_MAGIC))
    end = fixed + int(length)
    return end if end <= len(data) - _CHECKSUM_BYTES else None


def _may_be_under_way(path: Path) -> bool:
    """Whether another process may be writing this file."""
    try:
        return path.suffix[1:].isdigit() and time.time() - path.lstat().st_mtime < 600
    except OSError:
        return True
