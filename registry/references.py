"""References: blobs that are not in the store but are used where another program keeps them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from registry.digest import Digest
from registry.errors import InvalidRequest

MAX_REFERENCE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Reference:
    """A file elsewhere, and its size when its digest was computed."""

    path: Path
    size: int

    @property
    def state(self) -> str:
        """`there`, `changed` when its size is another one, or `gone`; told without reading the file."""
        try:
            size = self.path.stat().st_size
        except OSError:
            return "gone"
        return "there" if size == self.size else "changed"

    def to_bytes(self) -> bytes:
        return json.dumps({"path": os.fspath(self.path), "size": self.size}).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> Reference | None:
        """None for what is no reference."""
        try:
            record = json.loads(content)
            path = Path(record["path"])
            if not path.is_absolute():
                return None
            return cls(path, int(record["size"]))
        except (ValueError, KeyError, TypeError, RecursionError):
            return None


class References:
    """Reads the records in a store's folder `references`: one small file for each digest, named like a blob."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "references"

    def path(self, digest: Digest) -> Path:
        """Where the record of a digest lies, if there is one."""
        return self.folder / digest.file_name

    def find(self, digest: Digest) -> Reference | None:
        try:
            with self.path(digest).open("rb") as file:
                return Reference.from_bytes(file.read(MAX_REFERENCE_BYTES))
        except OSError:
            return None

    def all(self) -> Iterator[tuple[Digest, Reference]]:
        """Every record that can be read, in the order of the digests."""
        try:
            names = sorted(file.name for file in self.folder.iterdir())
        except OSError:
            return
        for name in names:
            try:
                digest = Digest.parse(name)
            except InvalidRequest:
                continue
            reference = self.find(digest)
            if reference is not None:
                yield digest, reference
