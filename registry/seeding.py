"""Makes the sound chunks of a damaged file the beginning of its next download."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from registry.byte_ranges import Range
from registry.content_hash import ChunkSums, ContentHash
from registry.partial import Partial

_READ_BYTES = 1 << 20


def sound_ranges(path: Path, known: ChunkSums) -> list[Range]:
    """The chunks of a file that are as they were when it was verified. Blocks. Raises OSError."""
    hashes = ContentHash(known.chunk_bytes)
    with path.open("rb", buffering=0) as file:
        while hashes.position < known.size and (piece := file.read(min(_READ_BYTES, known.size - hashes.position))):
            hashes.update(piece)
    damaged = known.damaged(hashes.chunk_sums())
    sound, at = [], 0
    for start, end in [*damaged, (known.size, known.size)]:
        if at < start:
            sound.append((at, start))
        at = end
    return sound


def seed(partial: Partial, damaged: Path, known: ChunkSums) -> None:
    """Put what is sound of a damaged file into an empty partial.

    A file that nobody else uses becomes the partial itself, which needs no second room on the
    disk; of any other the sound chunks are copied. Blocks; without success the partial stays empty.
    """
    try:
        sound = sound_ranges(damaged, known)
    except OSError:
        return
    if not sound:
        return
    if _is_ours_alone(damaged) and partial.take_over(damaged):
        for start, end in sound:
            partial.note(start, end)
        return
    with damaged.open("rb", buffering=0) as file:
        for start, end in sound:
            file.seek(start)
            while start < end and (piece := file.read(min(_READ_BYTES, end - start))):
                partial.write(start, piece)
                start += len(piece)


def _is_ours_alone(path: Path) -> bool:
    with contextlib.suppress(OSError):
        status = path.lstat()
        return stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and os.access(path, os.W_OK)
    return False
