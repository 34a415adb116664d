"""The names of files under way: the same for everyone who wants the same bytes."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from registry.digest import Digest

JOURNAL_SUFFIX = ".journal"
PACKED_SUFFIX = ".packed"
_KEY = re.compile(r"(sha256|address)-[0-9a-f]{64}")


def key_of_digest(digest: Digest) -> str:
    """The name of the partial of a file whose digest is known."""
    return digest.file_name


def key_of_address(address: str) -> str:
    """The name of the partial of a file of which only the address is known."""
    return f"address-{hashlib.sha256(address.encode()).hexdigest()}"


def key_of_packed(key: str, start: int, place: int) -> str:
    """The name of the partial that holds packed what belongs at `start` of another, and lies at `place` at its source.

    It belongs to that other one: whoever may write the one may write both, and they go together.
    """
    return f"{key}.{start}-{place}{PACKED_SUFFIX}"


def is_key(name: str) -> bool:
    """Whether a partial of a whole file could have that name."""
    return _KEY.fullmatch(name) is not None


def start_of_packed(key: str) -> int:
    """Where in the file that it belongs to."""
    number = key.removesuffix(PACKED_SUFFIX).rpartition(".")[2].partition("-")[0]
    return int(number) if number.isdecimal() else 0


def packed_files(folder: Path, key: str) -> list[Path]:
    """The packed partials in a folder that belong to another one."""
    return list(folder.glob(f"{key}.*{PACKED_SUFFIX}"))


def owner_of(file_name: str) -> str:
    """The key of the partial that a file in the folder belongs to."""
    name = file_name.removesuffix(JOURNAL_SUFFIX)
    return name.partition(".")[0] if name.endswith(PACKED_SUFFIX) else name


def journal_path(path: Path) -> Path:
    """The journal beside a partial."""
    return path.with_name(path.name + JOURNAL_SUFFIX)
