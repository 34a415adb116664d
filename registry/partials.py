"""The folder of files under way, so that whoever comes next goes on where the last one was."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from registry.journal import FileFacts, JournalReader, JournalState, with_name
from registry.locks import writing
from registry.partial import Partial
from registry.partial_keys import JOURNAL_SUFFIX, journal_path, owner_of, packed_files, start_of_packed

MAX_AGE_SECONDS = 30 * 24 * 3600.0
"""A partial that nobody has touched for so long is taken for forgotten."""


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
        return JournalReader(journal_path(self.path(key)))

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
                journal_path(self.path(one)).unlink(missing_ok=True)

    def _packed(self, key: str) -> list[str]:
        """Those that belong to another."""
        return [path.name for path in packed_files(self._folder, key)]

    def _ahead(self, key: str, state: JournalState) -> int:
        """How much of a file is there packed alone; what is packed takes about the room that it unpacks to."""
        ahead = 0
        for one in self._packed(key):
            reader = self.look(one)
            if reader.refresh():
                start = start_of_packed(one)
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
        reader = JournalReader(journal_path(path))
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


def _occupied(status: os.stat_result) -> int:
    return int(getattr(status, "st_blocks", status.st_size // 512)) * 512
