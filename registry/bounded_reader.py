"""Reads a file's bytes in order and believes no length before the file has shown that it can be so."""

from __future__ import annotations

import struct
from io import FileIO

from registry.errors import ModelInvalid

MAX_STRING_BYTES = 16 * 1024 * 1024

_BUFFER_BYTES = 1024 * 1024
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")


class BoundedReader:
    """A file's bytes in order, through a buffer of bounded size. `where` names what is being read, for complaints."""

    def __init__(self, file: FileIO, size: int) -> None:
        self._file = file
        self.size = size
        self._buffer = b""
        self._start = 0
        """Where in the file the buffer begins."""
        self._next = 0
        """Where in the buffer the next byte is."""

    @property
    def position(self) -> int:
        return self._start + self._next

    @property
    def remaining(self) -> int:
        return self.size - self.position

    def take(self, count: int, where: str) -> memoryview:
        """The next bytes; only so many are read at once as the file really has."""
        if count > self.remaining:
            raise ModelInvalid(f"The file ends at byte {self.size}, inside {where}.")
        if count > len(self._buffer) - self._next:
            self._fill(count, where)
        taken = memoryview(self._buffer)[self._next : self._next + count]
        self._next += count
        return taken

    def skip(self, count: int, where: str) -> None:
        if count > self.remaining:
            raise ModelInvalid(f"The file ends at byte {self.size}, inside {where}.")
        if count <= len(self._buffer) - self._next:
            self._next += count
            return
        self._start = self._file.seek(self.position + count)
        self._buffer, self._next = b"", 0

    def u32(self, where: str) -> int:
        value: int = _U32.unpack(self.take(4, where))[0]
        return value

    def u64(self, where: str) -> int:
        value: int = _U64.unpack(self.take(8, where))[0]
        return value

    def scalar(self, kind: struct.Struct, where: str) -> int | float | bool:
        value: int | float | bool = kind.unpack(self.take(kind.size, where))[0]
        return value

    def scalars(self, kind: struct.Struct, count: int, where: str) -> list[int] | list[float] | list[bool]:
        return [one for (one,) in kind.iter_unpack(self.take(kind.size * count, where))]

    def text(self, most: int, where: str, *, strict: bool = False) -> str:
        length = self.u64(f"the length of {where}")
        if length > most:
            raise ModelInvalid(f"{_capital(where)} is {length} bytes long; at most {most} are read.")
        content = self.take(length, where)
        try:
            return str(content, "utf-8", "strict" if strict else "replace")
        except UnicodeDecodeError:
            raise ModelInvalid(f"{_capital(where)} is not UTF-8.") from None

    def skip_strings(self, count: int, where: str) -> None:
        """Step over strings without making them; the loop is the larger part of reading a header."""
        length_at = _U64.unpack_from
        while count:
            if len(self._buffer) - self._next < 8:
                self._fill(8, where)
            buffer, at = self._buffer, self._next
            last = len(buffer) - 8
            while count and at <= last:
                length = length_at(buffer, at)[0]
                if length > MAX_STRING_BYTES:
                    raise ModelInvalid(
                        f"An entry of {where} is {length} bytes long; at most {MAX_STRING_BYTES} are read."
                    )
                at += 8 + length
                count -= 1
            self._next = min(at, len(buffer))
            self.skip(at - self._next, where)

    def again(self, start: int, end: int) -> bytes:
        """What lies between two places that were passed; to be asked when all else has been read."""
        self._file.seek(start)
        pieces = []
        while start < end and (piece := self._file.read(end - start)):
            pieces.append(piece)
            start += len(piece)
        if start < end:
            raise ModelInvalid("The file became shorter while it was read.")
        return b"".join(pieces)

    def _fill(self, count: int, where: str) -> None:
        if count > self.remaining:
            raise ModelInvalid(f"The file ends at byte {self.size}, inside {where}.")
        kept = self._buffer[self._next :]
        self._start, self._next = self.position, 0
        wanted = max(count, _BUFFER_BYTES) - len(kept)
        pieces = [kept]
        while wanted > 0:
            piece = self._file.read(wanted)
            if not piece:
                break
            pieces.append(piece)
            wanted -= len(piece)
        self._buffer = b"".join(pieces)
        if len(self._buffer) < count:
            raise ModelInvalid(f"The file became shorter while {where} was read.")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
