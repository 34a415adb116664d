"""Pulls that have been begun: which files each still wants, so that nothing of it is taken for garbage."""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from registry.digest import Digest
from registry.errors import InvalidName, InvalidRequest
from registry.locks import writing
from registry.name import ModelName
from registry.partials import MAX_AGE_SECONDS

_MAX_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class WantedFile:
    """A file of a pull, whether it is here already or not."""

    key: str
    """Of its partial."""
    digest: Digest | None
    size: int | None
    title: str | None = None


@dataclass(frozen=True, slots=True)
class UnfinishedPull:
    """A pull that was begun and has not come to its end."""

    name: ModelName
    files: tuple[WantedFile, ...]
    age_seconds: float = 0.0
    """Since it was last gone on with."""
    source: str | None = None
    """What it is fetched from, where the name does not say that."""


class UnfinishedPulls:
    """Owns a small record for each pull under way or broken off. Every method blocks."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folder = root / "pulls"

    def remember(self, name: ModelName, files: Sequence[WantedFile], source: str | None = None) -> None:
        """Note what a pull wants. Raises StoreReadOnly or DiskFull."""
        document = {
            "name": name.full,
            "source": source,
            "files": [
                {"key": one.key, "digest": one.digest and str(one.digest), "size": one.size, "title": one.title}
                for one in files
            ],
        }
        with writing(self._root):
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._path(name)
            temporary = path.with_suffix(f".{secrets.token_hex(8)}")
            try:
                temporary.write_text(json.dumps(document), "utf-8")
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)

    def forget(self, name: ModelName) -> None:
        with contextlib.suppress(OSError):
            self._path(name).unlink(missing_ok=True)

    def find(self, name: ModelName) -> UnfinishedPull | None:
        return _read(self._path(name))

    def all(self) -> Iterator[UnfinishedPull]:
        """Those that can be gone on with, the latest first. Forgotten ones count no more."""
        found = [pull for path in self._folder.glob("*.json") if (pull := _read(path)) is not None]
        yield from sorted((one for one in found if one.age_seconds < MAX_AGE_SECONDS), key=lambda one: one.age_seconds)

    def digests(self) -> set[Digest]:
        """Every file that an unfinished pull wants; those that are here already must stay."""
        return {file.digest for pull in self.all() for file in pull.files if file.digest is not None}

    def _path(self, name: ModelName) -> Path:
        return self._folder / f"{hashlib.sha256(name.folded.encode()).hexdigest()}.json"


def _read(path: Path) -> UnfinishedPull | None:
    try:
        age = max(0.0, time.time() - path.stat().st_mtime)
        with path.open("rb") as file:
            document = json.loads(file.read(_MAX_BYTES))
        files = tuple(_read_file(one) for one in document["files"])
        source = document.get("source")
        return UnfinishedPull(
            ModelName.parse(document["name"]), files, age, source if isinstance(source, str) else None
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, InvalidName, InvalidRequest):
        return None


def _read_file(document: dict[str, object]) -> WantedFile:
    key, digest, size, title = (document[name] for name in ("key", "digest", "size", "title"))
    if not isinstance(key, str) or "/" in key or "\\" in key or key.startswith("."):
        raise ValueError("a key that is none")
    return WantedFile(
        key,
        Digest.parse(str(digest)) if digest is not None else None,
        size if isinstance(size, int) else None,
        title if isinstance(title, str) else None,
    )
