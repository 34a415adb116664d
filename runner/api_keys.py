"""API keys, by which the daemon knows who asks from elsewhere: made, kept in a file beside `config.toml`, recognized.

Of a key only its SHA-256 is kept. A key has 192 random bits, so that nothing slower is needed against guessing.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

import msgspec
from filelock import FileLock, Timeout

from registry.atomic_write import write_atomically

KEY_FILE = "keys.json"
MOST_KEYS = 1000
LONGEST_NAME = 64
_MAX_FILE_BYTES = 1 << 20
_ID_BYTES, _SECRET_BYTES = 4, 24
_KEY = re.compile(rf"puna_([0-9a-f]{{{2 * _ID_BYTES}}})_[0-9a-f]{{{2 * _SECRET_BYTES}}}")
_LOCK_SECONDS = 10.0


class KeyScope(StrEnum):
    """What a key may be used for."""

    INFER = "infer"
    READ = "read"
    MANAGE = "manage"


class ApiKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key as it is kept."""

    id: str
    name: str
    scopes: tuple[KeyScope, ...]
    created_at: datetime
    sha256: str
    """Of the whole key, in hexadecimal digits."""
    is_background: bool = False
    """Its requests let others go first."""


class KeyFileError(Exception):
    """The file cannot be used. `str()` is a sentence for whoever runs the daemon, and names the file."""


class KeyRefused(Exception):
    """There cannot be such a key, or there is none. `str()` is a sentence for whoever asked."""


class _Content(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    keys: tuple[ApiKey, ...] = ()


@dataclass(frozen=True, slots=True)
class KeyFile:
    """The file of keys; an absent one holds none. Methods block and raise KeyFileError; changes also KeyRefused."""

    path: Path

    @classmethod
    def beside(cls, config_file: Path) -> KeyFile:
        return cls(config_file.with_name(KEY_FILE))

    def read(self) -> tuple[ApiKey, ...]:
        """The keys in the order they were made."""
        try:
            with self.path.open("rb") as file:
                content = file.read(_MAX_FILE_BYTES + 1)
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise KeyFileError(f"{self.path} cannot be read: {error.strerror}.") from None
        try:
            if len(content) > _MAX_FILE_BYTES:
                raise ValueError(f"it is larger than {_MAX_FILE_BYTES} bytes")
            keys = msgspec.json.decode(content, type=_Content).keys
            if len({key.id for key in keys}) < len(keys):
                raise ValueError("two keys have one id")
        except ValueError as error:  # msgspec's errors are such
            raise KeyFileError(f"{self.path} is no file of API keys: {error}.") from None
        return keys

    def create(self, name: str, scopes: Collection[KeyScope], *, is_background: bool = False) -> tuple[ApiKey, str]:
        """Make a key; gives what is kept of it, and the key itself, which nobody can tell again."""
        if not (name.isprintable() and name == name.strip() and 0 < len(name) <= LONGEST_NAME):
            raise KeyRefused(f"A key's name has 1 to {LONGEST_NAME} printable characters, and no blank at its ends.")
        with self._lock():
            keys = self.read()
            if any(key.name == name for key in keys):
                raise KeyRefused(f"There is a key named {name} already; `puna key list` shows it.")
            if len(keys) >= MOST_KEYS:
                raise KeyRefused(f"There are {MOST_KEYS} keys, and there may be no more; remove one first.")
            key_id = _unused_id({key.id for key in keys})
            text = f"puna_{key_id}_{secrets.token_hex(_SECRET_BYTES)}"
            in_order = tuple(scope for scope in KeyScope if scope in scopes)
            key = ApiKey(key_id, name, in_order, datetime.now(UTC), _sha256(text), is_background)
            self._write((*keys, key))
        return key, text

    def remove(self, name_or_id: str) -> ApiKey:
        """Take a key out; who has it is turned away from now on. Gives what was kept of it."""
        with self._lock():
            keys = self.read()
            named = [key for key in keys if key.name == name_or_id] or [key for key in keys if key.id == name_or_id]
            if not named:
                raise KeyRefused(f"There is no key {name_or_id}; `puna key list` shows those there are.")
            self._write(tuple(key for key in keys if key is not named[0]))
        return named[0]

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Two commands at once change the file one after the other."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{self.path}.lock", timeout=_LOCK_SECONDS):
                yield
        except Timeout:
            raise KeyFileError(f"Another command has been changing {self.path} for too long. Try again.") from None
        except OSError as error:
            raise KeyFileError(f"{self.path} cannot be changed: {error.strerror}.") from None

    def _write(self, keys: tuple[ApiKey, ...]) -> None:
        path = Path(os.path.realpath(self.path))  # a link to a file kept elsewhere stays one
        content = msgspec.json.format(msgspec.json.encode(_Content(keys)), indent=2) + b"\n"
        write_atomically(path, content, path.parent, mode=0o600)


class KeyRing:
    """Owns what the daemon knows of the keys. The file is read again as soon as it has changed."""

    def __init__(self, file: KeyFile) -> None:
        self._file = file
        self._seen: tuple[int, int, int] | None = None
        """Size, time and inode of the file when it was read; None when there was none."""
        self._keys: dict[str, ApiKey] = {}

    def find(self, text: str) -> ApiKey | None:
        """The key that `text` is; None when it is none, or none any more. Raises KeyFileError."""
        match = _KEY.fullmatch(text)
        if match is None:
            return None
        self._look()
        key = self._keys.get(match[1])
        return key if key is not None and hmac.compare_digest(key.sha256, _sha256(text)) else None

    def _look(self) -> None:
        try:
            found = self._file.path.stat()
            seen = (found.st_size, found.st_mtime_ns, found.st_ino)
        except FileNotFoundError:
            seen = None
        except OSError as error:
            raise KeyFileError(f"{self._file.path} cannot be read: {error.strerror}.") from None
        if seen != self._seen:
            self._keys = {key.id: key for key in self._file.read()}
            self._seen = seen


def _unused_id(used: Collection[str]) -> str:
    while (key_id := secrets.token_hex(_ID_BYTES)) in used:
        pass
    return key_id


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
