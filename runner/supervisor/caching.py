"""How much a worker may keep of what it computed, and where."""

from __future__ import annotations

from pathlib import Path

from runner.messages import CacheOptions
from runner.settings import CacheSettings

MEMORY_SHARE = 8
"""Without a setting, each loaded model keeps prefixes in one part of so many of the machine's memory."""
MOST_MEMORY_BYTES = 8 << 30


def cache_options(
    settings: CacheSettings, folder: Path | None, *, machine_memory: int, weights_digest: str
) -> CacheOptions:
    """`folder` is where the files go unless a setting says otherwise; without either there are none."""
    memory = settings.memory_bytes
    if memory is None:
        memory = min(machine_memory // MEMORY_SHARE, MOST_MEMORY_BYTES)
    directory = settings.directory or folder
    return CacheOptions(
        memory_bytes=memory,
        disk_bytes=0 if directory is None else settings.disk_bytes,
        directory="" if directory is None else str(directory),
        weights_digest=weights_digest,
    )
