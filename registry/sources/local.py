"""Model files that are already on this machine."""

from __future__ import annotations

import asyncio
from typing import BinaryIO

from registry.blobs import PIECE_BYTES
from registry.catalog import LocalSpec, Role
from registry.errors import SourceError, SourceUnreachable
from registry.sources.source import Sink


class LocalSource:
    """Copies files of this machine into the store."""

    def __init__(self, spec: LocalSpec) -> None:
        self._spec = spec

    @property
    def label(self) -> str:
        return f"the file {self._spec.files['model'].name}"

    async def fetch(self, role: Role, sink: Sink) -> None:
        path = self._spec.files[role]
        await asyncio.to_thread(sink.restart)
        try:
            file = await asyncio.to_thread(path.open, "rb")
        except OSError as error:
            raise SourceUnreachable(f"{path.name} cannot be opened: {error.strerror}.") from error
        with file:
            while piece := await asyncio.to_thread(_read, file):
                await asyncio.to_thread(sink.write, piece)
        await asyncio.to_thread(sink.check)


def _read(file: BinaryIO) -> bytes:
    try:
        return file.read(PIECE_BYTES)
    except OSError as error:
        raise SourceError(f"A file cannot be read: {error.strerror}.") from error
