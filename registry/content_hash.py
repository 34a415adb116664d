"""Hashes of a file under way: the whole by SHA-256, and each 16 MiB by a checksum that finds damage."""

from __future__ import annotations

import hashlib
import json
import zlib
from dataclasses import dataclass

from registry.digest import Digest

CHUNK_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class ChunkSums:
    """A checksum for each chunk of a verified file.

    They say where a file is damaged; whether it is whole, only its digest says. So CRC-32 is
    enough, and costs a fraction of the digest itself.
    """

    size: int
    sums: tuple[int, ...]
    chunk_bytes: int = CHUNK_BYTES
    names: tuple[str, ...] = ()
    """The models it was fetched for, which tell where it can be had again."""

    def damaged(self, other: ChunkSums) -> list[tuple[int, int]]:
        """The chunks, as ranges of bytes, in which another file differs."""
        found = []
        for index, expected in enumerate(self.sums):
            if index >= len(other.sums) or other.sums[index] != expected:
                start = index * self.chunk_bytes
                found.append((start, min(start + self.chunk_bytes, self.size)))
        return found

    def to_bytes(self) -> bytes:
        document = {
            "algorithm": "crc32",
            "size": self.size,
            "chunk_bytes": self.chunk_bytes,
            "sums": self.sums,
            "names": self.names,
        }
        return json.dumps(document, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> ChunkSums | None:
        """None for anything that is not a whole set of checksums."""
        try:
            document = json.loads(content)
            size, chunk_bytes = int(document["size"]), int(document["chunk_bytes"])
            sums = tuple(int(one) for one in document["sums"])
            names = tuple(str(one) for one in document["names"])
            is_known = document["algorithm"] == "crc32"
        except (ValueError, KeyError, TypeError, RecursionError):
            return None
        is_whole = size >= 0 and chunk_bytes > 0 and len(sums) == -(-size // chunk_bytes)
        return cls(size, sums, chunk_bytes, names) if is_known and is_whole else None


class ContentHash:
    """Hashes a file's bytes in their order, however they arrive."""

    def __init__(self, chunk_bytes: int = CHUNK_BYTES) -> None:
        self._chunk_bytes = chunk_bytes
        self._sha = hashlib.sha256()
        self._sums: list[int] = []
        self._sum = 0
        self.position = 0
        """How many bytes have been hashed."""

    def update(self, content: bytes | bytearray | memoryview) -> None:
        """Take the bytes that follow; blocks, without keeping other threads from running."""
        self._sha.update(content)
        rest = memoryview(content)
        while rest:
            piece = rest[: self._chunk_bytes - self.position % self._chunk_bytes]
            self._sum = zlib.crc32(piece, self._sum)
            self.position += len(piece)
            rest = rest[len(piece) :]
            if self.position % self._chunk_bytes == 0:
                self._sums.append(self._sum)
                self._sum = 0

    def digest(self) -> Digest:
        return Digest(self._sha.hexdigest())

    def chunk_sums(self) -> ChunkSums:
        """Of everything so far."""
        is_odd = self.position % self._chunk_bytes != 0
        sums = (*self._sums, self._sum) if is_odd else tuple(self._sums)
        return ChunkSums(self.position, sums, self._chunk_bytes)
