"""A member that lies packed in its wheel: what comes of it is kept until it is unpacked, so that nothing comes twice.

The state of an inflater cannot be kept, so that one who goes on has to inflate from the start; what
has been downloaded can, in a partial of its own beside that of the file.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from registry.errors import SourceError
from registry.following import along, to_the_end
from registry.partial import Partial
from registry.sources.source import Sink
from registry.sources.unpacker import STORED, Unpacker

_PIECE_BYTES = 1 << 20
_STRETCH_BYTES = 16 << 20


class PackedMember:
    """Owns how far one member is unpacked out of the partial that its packed bytes are coming into."""

    def __init__(self, packed: Partial, method: int, sink: Sink) -> None:
        assert packed.size is not None, "a packed member has a size"
        self._packed = packed
        self._size = packed.size
        self._method = method
        self._sink = sink
        self._unpacker = Unpacker(method, sink)
        self._position = 0
        self._failure: SourceError | None = None

    @property
    def ahead(self) -> int:
        """Bytes of the file that are here packed and not unpacked yet, by estimate."""
        come = self._packed.completed * self._sink.size // self._size
        return max(0, come - self._sink.present)

    async def fetch(self, download: Callable[[Partial], Awaitable[None]]) -> None:
        """Let the packed bytes be downloaded, and unpack them as they come.

        They are let go when the member is whole, or cannot be unpacked. Raises as `download` does, and SourceError.
        """
        try:
            async with along(self._packed.flush_if_due), along(self._advance):
                await download(self._packed)
            await to_the_end(self._advance)
            self._check_end()
        except BaseException:
            if self._failure is None:
                self._packed.close()
            else:
                self._packed.forget()
            raise
        self._packed.forget()

    def _advance(self) -> bool:
        """Unpack a stretch of what has come; whether there was any. Raises the same each time, once it has failed."""
        if self._failure is not None:
            raise self._failure
        begun = self._position
        end = min(self._packed.prefix, begun + _STRETCH_BYTES)
        try:
            while self._position < end:
                piece = self._packed.read(self._position, min(_PIECE_BYTES, end - self._position))
                if not piece:
                    raise SourceError("What has been downloaded has become shorter on the disk.")
                if self._unpacker.is_done:
                    raise SourceError("The archive's member ends before its announced length.")
                self._unpacker.feed(piece)
                self._position += len(piece)
        except SourceError as error:
            self._failure = error
            raise
        return self._position > begun

    def _check_end(self) -> None:
        try:
            if self._method != STORED and not self._unpacker.is_done:
                raise SourceError("The archive's member goes on behind its announced length.")
            self._sink.check()
        except SourceError as error:
            self._failure = error
            raise
