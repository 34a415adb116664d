"""Hashes a partial from its start, close behind those who write it."""

from __future__ import annotations

import contextlib
import threading

from registry.content_hash import ChunkSums, ContentHash
from registry.digest import Digest
from registry.errors import SourceError
from registry.following import along, to_the_end
from registry.partial import Partial

_PIECE_BYTES = 1 << 20
_STRETCH_BYTES = 64 << 20


class PartialHash:
    """Owns how far a partial is hashed; starts again when some of it was found not to be trusted."""

    def __init__(self, partial: Partial) -> None:
        self._partial = partial
        self._hash = ContentHash()
        self._buffer = memoryview(bytearray(_PIECE_BYTES))
        self._lock = threading.Lock()
        self._drops = partial.drops

    def along(self) -> contextlib.AbstractAsyncContextManager[None]:
        """Hash in threads while the body runs."""
        return along(self._advance)

    async def finish(self) -> None:
        """Hash what is left."""
        await to_the_end(self._advance)

    def digest(self) -> Digest:
        return self._hash.digest()

    def chunk_sums(self) -> ChunkSums:
        return self._hash.chunk_sums()

    def _advance(self) -> bool:
        """Hash a stretch of what is there; whether there was any."""
        with self._lock:
            return self._advance_alone()

    def _advance_alone(self) -> bool:
        partial = self._partial
        if partial.drops != self._drops:
            self._hash, self._drops = ContentHash(), partial.drops
        begun = position = self._hash.position
        end = min(partial.prefix, begun + _STRETCH_BYTES)
        while position < end:
            count = partial.read_into(self._buffer[: end - position], position)
            if not count:
                raise SourceError("What has been downloaded has become shorter on the disk.")
            self._hash.update(self._buffer[:count])
            position += count
        return position > begun
