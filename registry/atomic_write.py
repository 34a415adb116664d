"""Replaces small files in one step, so that nobody ever sees half of one."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path


def write_atomically(path: Path, content: bytes, folder: Path, *, is_durable: bool = True, mode: int = 0o666) -> None:
    """Replace a file in one step, by way of a file in `folder` on the same disk. `mode` is limited by the umask."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"{path.name[:100]}.{secrets.token_hex(8)}"
    try:
        with open(temporary, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.write(content)
            if is_durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if is_durable:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk itself, where the system lets us."""
    # Windows cannot open a folder, and some network file systems cannot flush one.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
