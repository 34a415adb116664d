"""What the disk of a model store can do, found by trying it in a folder of our own."""

from __future__ import annotations

import contextlib
import secrets
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from registry.linking import clone, hard_link

_PREFIX = "probe"


@dataclass(frozen=True, slots=True)
class Abilities:
    """What can be done with files there."""

    locks: bool = True
    """Processes can keep one another out, and a process that dies keeps nobody out."""
    shares: bool = True
    """A file can have a second name, or a copy that takes no room."""

    @property
    def lacks(self) -> tuple[str, ...]:
        """What that means for people, a clause each."""
        found = []
        if not self.locks:
            found.append("it has no locks between processes (lock files are used; do not let two daemons write there)")
        if not self.shares:
            found.append("files cannot be shared with other programs (adopted ones are used where they are)")
        return tuple(found)


def probe(root: Path) -> Abilities | None:
    """Try it; blocks for a moment and leaves nothing. None where nothing can be written."""
    area = root / "partials"
    name = f"{_PREFIX}.{secrets.token_hex(8)}"
    first, second, third = (area / f"{name}.{number}" for number in range(3))
    try:
        area.mkdir(parents=True, exist_ok=True)
        first.write_bytes(b"probe")
    except OSError:
        return None
    try:
        return Abilities(locks=_locks(second), shares=clone(first, third) or hard_link(first, third))
    finally:
        for path in (first, second, third):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def _locks(path: Path) -> bool:
    """Whether a lock that is held keeps another one out."""
    held, other = (FileLock(path, thread_local=False, is_singleton=False) for _ in range(2))
    try:
        held.acquire(timeout=0)
    except (OSError, NotImplementedError):
        return False
    try:
        other.acquire(timeout=0)
    except Timeout:
        return True
    except (OSError, NotImplementedError):
        return False
    else:
        other.release()
        return False
    finally:
        held.release()
