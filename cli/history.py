"""The lines typed in conversations, kept between sessions: a bounded file that only its owner reads."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

from prompt_toolkit.history import History

MAX_ENTRIES = 1000
MAX_ENTRY_CHARACTERS = 20_000


class BoundedHistory(History):
    """One JSON string a line, the newest last.

    A file that cannot be read or written costs the history and nothing else.
    """

    def __init__(self, path: Path, *, is_kept: bool = True) -> None:
        super().__init__()
        self._path = path
        self.is_kept = is_kept
        """Whether what is typed from now on goes into the file."""

    def load_history_strings(self) -> Iterable[str]:
        """Newest first, as prompt-toolkit wants it; a file grown too long is cut here."""
        entries = self._read()
        if len(entries) > MAX_ENTRIES:
            entries = entries[-MAX_ENTRIES:]
            self._replace(entries)
        return reversed(entries)

    def store_string(self, string: str) -> None:
        if not self.is_kept or len(string) > MAX_ENTRY_CHARACTERS:
            return
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # Appended, so that two sessions at once lose nothing of each other.
            with open(self._path, "a", encoding="utf-8", opener=_open_private) as file:
                file.write(json.dumps(string) + "\n")

    def _read(self) -> list[str]:
        try:
            lines = self._path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            return []
        entries = []
        for line in lines:
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                if isinstance(entry, str):
                    entries.append(entry)
        return entries

    def _replace(self, entries: list[str]) -> None:
        partial = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        with contextlib.suppress(OSError):
            with open(partial, "w", encoding="utf-8", opener=_open_private) as file:
                file.writelines(json.dumps(entry) + "\n" for entry in entries)
            partial.replace(self._path)


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
