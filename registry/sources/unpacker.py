"""Unpacks a member's bytes into a sink, in bounded pieces and never more than the sink takes."""

from __future__ import annotations

import zlib

from registry.blobs import PIECE_BYTES
from registry.errors import SourceError
from registry.sources.source import Sink

STORED, DEFLATED = 0, 8


class Unpacker:
    """Owns how far one member is unpacked; one byte too much stops it."""

    def __init__(self, method: int, sink: Sink) -> None:
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS) if method == DEFLATED else None
        self._sink = sink

    @property
    def is_done(self) -> bool:
        """The packed stream itself has said that it ends here."""
        return self._inflater is not None and self._inflater.eof

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes as they lie in the archive; blocks. Raises SourceError for damaged ones."""
        if self._inflater is None:
            self._sink.write(chunk)
            return
        while not self._inflater.eof:
            try:
                # One byte more than the file may have shows a stream that goes on, at no cost.
                piece = self._inflater.decompress(chunk, min(PIECE_BYTES, self._sink.remaining + 1))
            except zlib.error:
                raise SourceError("The archive's member cannot be inflated: its data is damaged.") from None
            chunk = self._inflater.unconsumed_tail
            if piece:
                self._sink.write(piece)
            elif not chunk:
                break
