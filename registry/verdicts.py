"""What was found when files of the store were hashed, and of which state of each."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path

from registry.atomic_write import write_atomically
from registry.blob_places import BlobPlaces
from registry.digest import Digest


@dataclass(frozen=True, slots=True)
class BlobFacts:
    """What tells, without reading a file, that it has changed."""

    size: int
    modified_ns: int


def facts_of(path: Path) -> BlobFacts:
    """Raises OSError."""
    status = path.stat()
    return BlobFacts(status.st_size, status.st_mtime_ns)


@dataclass(frozen=True, slots=True)
class _Verdict:
    facts: BlobFacts
    is_sound: bool


class Verdicts:
    """Owns the records in `verified/`; in a store that cannot be written, they last as long as this object."""

    def __init__(self, root: Path, places: BlobPlaces) -> None:
        self._folder = root / "verified"
        self._partials = root / "partials"
        self._places = places
        self._known: dict[Digest, _Verdict] = {}

    def find(self, digest: Digest, facts: BlobFacts) -> bool | None:
        """Whether the file as it is now was verified or found damaged; None when nobody has looked."""
        known = self._known.get(digest)
        if known is None or known.facts != facts:
            known = self._recorded(digest)
            if known is None:
                return None
            if known.facts != facts:
                # Of another size than what was once verified, it cannot be that.
                return False if known.is_sound and known.facts.size != facts.size else None
            self._known[digest] = known
        return known.is_sound

    def record(self, digest: Digest, facts: BlobFacts, *, is_sound: bool) -> None:
        """Remember what was found of a file that was as `facts` say."""
        self._known[digest] = _Verdict(facts, is_sound)
        document = {"size": facts.size, "mtime_ns": facts.modified_ns, "is_sound": is_sound}
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            content = json.dumps(document).encode()
            write_atomically(self._folder / digest.file_name, content, self._partials, is_durable=False)

    def forget(self, digest: Digest) -> None:
        """The file is gone."""
        self._known.pop(digest, None)
        with contextlib.suppress(OSError):
            (self._folder / digest.file_name).unlink(missing_ok=True)

    def _recorded(self, digest: Digest) -> _Verdict | None:
        for file in self._places.verdict_files(digest):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
                record = json.loads(file.read_bytes())
                facts = BlobFacts(int(record["size"]), int(record["mtime_ns"]))
                return _Verdict(facts, record.get("is_sound") is not False)
        return None
