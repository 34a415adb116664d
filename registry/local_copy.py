"""Copies a file of this machine into a partial, from where an earlier copy broke off."""

from __future__ import annotations

import asyncio
from pathlib import Path

from registry.errors import SourceError, SourceUnreachable
from registry.partial import Partial

_PIECE_BYTES = 4 << 20


async def copy_local(path: Path, partial: Partial) -> None:
    """Bring what a partial lacks from a file of this machine.

    Raises SourceError (also SourceUnreachable), DiskFull or StoreReadOnly.
    """
    await asyncio.to_thread(_begin, path, partial)
    for start, end in partial.missing():
        for at in range(start, end, _PIECE_BYTES):
            await asyncio.to_thread(_copy, path, partial, at, min(end, at + _PIECE_BYTES))


def _begin(path: Path, partial: Partial) -> None:
    """See that it is the file that was begun with; another one is copied from its start."""
    try:
        status = path.stat()
        with path.open("rb"):
            pass
    except OSError as error:
        raise SourceUnreachable(f"{path.name} cannot be opened: {error.strerror}.") from error
    if partial.size is None:
        partial.set_size(status.st_size)
    if partial.size != status.st_size:
        raise SourceError(f"{path.name} has {status.st_size} bytes; {partial.size} are expected.")
    version = f"{status.st_size} {status.st_mtime_ns}"
    if partial.version not in (None, version):
        partial.drop_all()
    partial.begin_version(version)


def _copy(path: Path, partial: Partial, start: int, end: int) -> None:
    try:
        with path.open("rb") as file:
            file.seek(start)
            piece = file.read(end - start)
    except OSError as error:
        raise SourceError(f"{path.name} cannot be read: {error.strerror}.") from error
    if len(piece) < end - start:
        raise SourceError(f"{path.name} has become shorter while it was copied.")
    partial.write(start, piece)
