"""What plain addresses gave when they were last fetched: unchanged there and still here, it need not come again."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from registry.atomic_write import write_atomically
from registry.digest import Digest
from registry.errors import InvalidRequest
from registry.partial_keys import key_of_address

_MAX_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class FetchedFile:
    """A file as it came from an address."""

    version: str
    """What the server called that state of it: a strong entity tag, else when it was changed."""
    digest: Digest
    size: int

    def is_still(self, version: str | None, size: int | None) -> bool:
        """Whether what the server says now means the very same bytes. A time alone does not: the size must be told."""
        is_tag = self.version.startswith('"')
        return version == self.version and (size == self.size or (is_tag and size is None))


class FetchedAddresses:
    """Owns a small record for each address, which itself is not in it. Every method blocks."""

    def __init__(self, root: Path) -> None:
        self._folder = root / "addresses"
        self._partials = root / "partials"

    def remember(self, address: str, file: FetchedFile) -> None:
        """Note what came, in place of what was noted before; failing costs no more than a download later."""
        document = {"version": file.version, "digest": str(file.digest), "size": file.size}
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path(address), json.dumps(document).encode(), self._partials, is_durable=False)

    def find(self, address: str) -> FetchedFile | None:
        return _read(self._path(address))

    def forget(self, is_gone: Callable[[Digest], bool]) -> None:
        """Remove the records of files that are not here any more, and what cannot be read."""
        with contextlib.suppress(OSError):
            for path in self._folder.iterdir():
                file = _read(path)
                if file is None or is_gone(file.digest):
                    path.unlink(missing_ok=True)

    def _path(self, address: str) -> Path:
        return self._folder / f"{key_of_address(address)}.json"


def _read(path: Path) -> FetchedFile | None:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError, InvalidRequest):
        with path.open("rb") as file:
            document = json.loads(file.read(_MAX_BYTES))
        version, digest, size = (document[name] for name in ("version", "digest", "size"))
        if isinstance(version, str) and isinstance(size, int):
            return FetchedFile(version, Digest.parse(str(digest)), size)
    return None
