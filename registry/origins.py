"""Where the models of a store were fetched from: a small record for each manifest, beside the store's own folders."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from registry.atomic_write import write_atomically
from registry.locks import writing

_MAX_BYTES = 64 * 1024
_HEX = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class Origin:
    """What a model was pulled as: the name or the address that will find it again, and when that was."""

    source: str
    fetched_at: datetime


class Origins:
    """Owns the records of one store. They go by the manifest's digest, so that a copy of a model keeps its origin.

    Every method blocks.
    """

    def __init__(self, root: Path) -> None:
        self._folder = root / "sources"
        self._partials = root / "partials"

    def remember(self, manifest_digest: str, origin: Origin) -> None:
        """Note an origin, in place of what was noted before. Raises StoreReadOnly or DiskFull."""
        document = {"source": origin.source, "fetched_at": origin.fetched_at.isoformat()}
        with writing(self._folder.parent):
            self._folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path(manifest_digest), json.dumps(document).encode(), self._partials)

    def find(self, manifest_digest: str) -> Origin | None:
        """The origin of a model; None when none was noted, or the note cannot be read."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            with self._path(manifest_digest).open("rb") as file:
                document = json.loads(file.read(_MAX_BYTES))
            return Origin(str(document["source"]), datetime.fromisoformat(document["fetched_at"]))
        return None

    def forget_others(self, manifest_digests: Iterable[str]) -> None:
        """Remove the records of models that are gone."""
        kept = set(manifest_digests)
        with contextlib.suppress(OSError):
            for path in self._folder.iterdir():
                if path.suffix == ".json" and path.stem not in kept:
                    path.unlink(missing_ok=True)

    def _path(self, manifest_digest: str) -> Path:
        if len(manifest_digest) != 64 or not _HEX.issuperset(manifest_digest):
            raise ValueError("That is no digest.")
        return self._folder / f"{manifest_digest}.json"
