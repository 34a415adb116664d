"""A file that is made here: the checkpoint it is made of is downloaded, converted, and let go."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from registry.progress import Progress
from registry.scratch import Scratch
from registry.sources.resolved import ConvertedCheckpoint, ResolvedFile
from registry.store import ModelStore
from registry.uninterrupted import uninterrupted

if TYPE_CHECKING:
    from registry.download import Download

_STEPS = 100
"""How often progress is told of a file: what was told is kept for those who follow later."""

Tell = Callable[[str | Progress], None]
"""Takes one line, or how far a file of the checkpoint is. Does not block."""


@contextlib.asynccontextmanager
async def converted(
    place: ConvertedCheckpoint, store: ModelStore, begin: Callable[[ResolvedFile], Download], tell: Tell
) -> AsyncGenerator[Path]:
    """The converted file, for as long as the body runs.

    What was downloaded for it is kept when something fails, for the next try. Raises as a download
    does, and ModelInvalid or Unsupported for a checkpoint that cannot be converted.
    """
    fetched = [file for file in place.as_files() if file.digest is not None and not store.blobs.has(file.digest)]
    scratch = Scratch(store.root)
    try:
        for file in fetched:
            await _bring(file, begin(file), tell)
        paths = {one.name: store.blob_path(one.digest) for one in place.files}
        folder = await asyncio.to_thread(scratch.link, paths)
        target = await asyncio.to_thread(scratch.path, "converted.gguf")
        tell("converting model")
        # Only pulls that convert pay for loading the converter.
        from registry.convert.convert import convert

        # It writes into a folder that is about to go.
        await uninterrupted(convert, folder, target, dtype=place.dtype)
        yield target
    finally:
        await asyncio.to_thread(scratch.remove)
    for file in fetched:
        if file.digest is not None:
            await asyncio.to_thread(store.blobs.remove, file.digest)


async def _bring(file: ResolvedFile, download: Download, tell: Tell) -> None:
    tell(Progress(f"fetching {file.title}", str(file.digest), file.size, 0))
    step = max(1, (file.size or 0) // _STEPS)
    shown = 0
    try:
        async with contextlib.aclosing(download.follow()) as steps:
            async for told, completed in steps:
                if told is not None:
                    tell(told)
                elif completed >= shown + step or completed == file.size:
                    shown = completed
                    tell(Progress(f"fetching {file.title}", str(file.digest), file.size, completed))
    finally:
        await download.stop()
