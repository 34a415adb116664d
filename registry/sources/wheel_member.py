"""Takes one member out of a wheel while the wheel is streamed; no length in the archive is trusted."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from registry.errors import SourceError
from registry.sources.remote_file import RandomAccessFile
from registry.sources.source import Sink
from registry.sources.unpacker import DEFLATED, STORED, Unpacker

TAIL_BYTES = 65536 + 22
MAX_DIRECTORY_BYTES = 16 * 1024 * 1024

_END = struct.Struct("<4s4H2LH")
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_ENCRYPTED, _SIZES_FOLLOW = 0x1, 0x8
_FULL32, _FULL16 = 0xFFFFFFFF, 0xFFFF


@dataclass(frozen=True, slots=True)
class Member:
    """Where a member lies in its archive."""

    name: str
    method: int
    offset: int
    """Of its local header."""
    compressed: int


@dataclass(frozen=True, slots=True)
class MemberData:
    """Where a member's bytes lie in its archive, as they are there."""

    method: int
    start: int
    size: int
    archive_size: int


FetchData = Callable[[MemberData, Sink], Awaitable[None]]


async def extract(file: RandomAccessFile, name: str, sink: Sink, fetch_data: FetchData | None = None) -> None:
    """Write a member into the sink, through ranges where the server gives them, else reading from the start.

    Where there are ranges, the member's bytes are left to `fetch_data`, if given. Raises SourceError for an
    archive that is damaged or lies.
    """
    ending = await file.tail(TAIL_BYTES)
    if ending is None:
        await _extract_forward(_Reader(file.stream(0)), name, sink)
        return
    size, tail = ending
    member = await _find_member(file, size, tail, name, sink.size)
    most_of_name = 4 * len(name)
    longest = most_of_name if fetch_data else 2 * _FULL16 + member.compressed
    reader = _Reader(file.stream(member.offset, min(size, member.offset + _LOCAL.size + longest)))
    try:
        header = _LocalHeader(await reader.exactly(_LOCAL.size))
        found = await reader.exactly(min(header.name_length, most_of_name + 1))
        if _text(found, header.flags) != name or header.method != member.method:
            raise SourceError(f"The archive's directory and its member {name!a} disagree.")
        if fetch_data is None:
            await reader.exactly(header.extra_length)
            await _copy(reader, member.method, member.compressed, sink)
            return
    finally:
        await reader.aclose()
    start = member.offset + _LOCAL.size + header.name_length + header.extra_length
    most = sink.size if member.method == STORED else sink.size + sink.size // 64 + 1024
    least = sink.size if member.method == STORED else 1
    if not least <= member.compressed <= most or start + member.compressed > size:
        raise SourceError(f"The archive's member {name!a} has another length than it should.")
    await fetch_data(MemberData(member.method, start, member.compressed, size), sink)


async def _find_member(file: RandomAccessFile, size: int, tail: bytes, name: str, expected: int) -> Member:
    start, length = _directory_place(size, tail)
    if length > MAX_DIRECTORY_BYTES:
        raise SourceError(f"The archive's directory has {length} bytes; at most {MAX_DIRECTORY_BYTES} are read.")
    tail_start = size - len(tail)
    if start >= tail_start:
        directory = tail[start - tail_start : start - tail_start + length]
    else:
        reader = _Reader(file.stream(start, start + length))
        try:
            directory = await reader.exactly(length)
        finally:
            await reader.aclose()
    return _member_in(directory, start, name, expected)


def _directory_place(size: int, tail: bytes) -> tuple[int, int]:
    """Offset and length of the central directory, from the archive's last bytes."""
    tail_start = size - len(tail)
    at = len(tail) - _END.size
    while at >= 0:
        at = tail.rfind(b"PK\x05\x06", 0, at + 4)
        if at < 0:
            break
        if at + _END.size <= len(tail):
            _, disk, _, _, count, length, start, comment = _END.unpack_from(tail, at)
            if at + _END.size + comment == len(tail):
                if _FULL16 in (disk, count) or _FULL32 in (length, start):
                    start, length = _directory_place64(tail, tail_start, at, start, length)
                if start + length > tail_start + at:
                    raise SourceError("The archive's directory does not fit in front of its end.")
                return start, length
        at -= 1
    raise SourceError("The file is not a zip archive: it has no end record.")


def _directory_place64(tail: bytes, tail_start: int, end: int, start: int, length: int) -> tuple[int, int]:
    at = end - _END64_LOCATOR.size
    if at < 0 or tail[at : at + 4] != b"PK\x06\x07":
        return start, length
    record = _END64_LOCATOR.unpack_from(tail, at)[2] - tail_start
    if not 0 <= record <= at - _END64.size or tail[record : record + 4] != b"PK\x06\x06":
        raise SourceError("The archive's zip64 end record is not where it should be.")
    fields = _END64.unpack_from(tail, record)
    return fields[9], fields[8]


def _member_in(directory: bytes, directory_start: int, name: str, expected: int) -> Member:
    found: list[Member] = []
    at = 0
    while at < len(directory):
        if at + _ENTRY.size > len(directory) or directory[at : at + 4] != b"PK\x01\x02":
            raise SourceError("The archive's directory is damaged.")
        entry = _ENTRY.unpack_from(directory, at)
        flags, method = entry[3], entry[4]
        compressed, plain, name_length, extra_length, comment_length = entry[8:13]
        offset = entry[16]
        at += _ENTRY.size
        its_name = _text(directory[at : at + name_length], flags)
        extra = directory[at + name_length : at + name_length + extra_length]
        at += name_length + extra_length + comment_length
        if its_name != name:
            continue
        plain, compressed, offset = _zip64_values(extra, plain, compressed, offset)
        _check_member(name, flags, method, plain, expected)
        if offset + _LOCAL.size + compressed > directory_start:
            raise SourceError(f"The archive's member {name!a} would reach into its directory.")
        found.append(Member(name, method, offset, compressed))
    if len(found) != 1:
        raise SourceError(f"The wheel has {len(found) or 'no'} member {name!a}.")
    return found[0]


def _zip64_values(extra: bytes, plain: int, compressed: int, offset: int) -> tuple[int, int, int]:
    """Replace the values that say "see the extra field" by those in it."""
    values = [plain, compressed, offset]
    if _FULL32 not in values:
        return plain, compressed, offset
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        content = extra[at + 4 : at + 4 + length]
        at += 4 + length
        if kind != 1:
            continue
        numbers = [one for (one,) in struct.iter_unpack("<Q", content[: len(content) // 8 * 8])]
        for index, value in enumerate(values):
            if value == _FULL32:
                if not numbers:
                    raise SourceError("The archive's zip64 field is too short.")
                values[index] = numbers.pop(0)
    return values[0], values[1], values[2]


def _check_member(name: str, flags: int, method: int, plain: int | None, expected: int) -> None:
    if flags & _ENCRYPTED:
        raise SourceError(f"The archive's member {name!a} is encrypted.")
    if method not in (STORED, DEFLATED):
        raise SourceError(f"The archive's member {name!a} is packed by method {method}, which is not known.")
    if plain is not None and plain != expected:
        raise SourceError(f"The archive's member {name!a} has {plain} bytes; {expected} are expected.")


async def _copy(reader: _Reader, method: int, compressed: int | None, sink: Sink) -> None:
    """Unpack the member's data. Without a length, a packed member ends where its stream says."""
    unpacker = Unpacker(method, sink)
    left = compressed
    while (left is None and not unpacker.is_done) or left:
        chunk = await reader.some()
        if left is not None:
            chunk, rest = chunk[:left], chunk[left:]
            reader.give_back(rest)
            left -= len(chunk)
        await asyncio.to_thread(unpacker.feed, chunk)
        if unpacker.is_done and left:
            raise SourceError("The archive's member ends before its announced length.")
    await asyncio.to_thread(sink.check)


async def _extract_forward(reader: _Reader, name: str, sink: Sink) -> None:
    """Read the archive from its start, member after member, up to the one that is wanted."""
    try:
        while True:
            header = _LocalHeader(await reader.exactly(_LOCAL.size))
            its_name = _text(await reader.exactly(header.name_length), header.flags)
            extra = await reader.exactly(header.extra_length)
            plain, compressed, _ = _zip64_values(extra, header.plain, header.compressed, 0)
            has_sizes = not header.flags & _SIZES_FOLLOW
            if its_name == name:
                _check_member(name, header.flags, header.method, plain if has_sizes else None, sink.size)
                length = compressed if has_sizes else sink.size if header.method == STORED else None
                await _copy(reader, header.method, length, sink)
                return
            if not has_sizes and not compressed:
                raise SourceError(
                    "The server sends only whole files, and the archive's sizes come too late to skip its members."
                )
            await reader.skip(compressed)
            if not has_sizes:
                await _skip_descriptor(reader)
    except _Ended:
        raise SourceError(f"The wheel has no member {name!a}, or ends before it.") from None
    finally:
        await reader.aclose()


async def _skip_descriptor(reader: _Reader) -> None:
    """Step over the sizes that follow a member, which come in four forms."""
    content = await reader.exactly(28)
    for length in (16, 12, 24, 20):
        if content[length : length + 4] in (b"PK\x03\x04", b"PK\x01\x02"):
            reader.give_back(content[length:])
            return
    raise SourceError("The archive is damaged between two members.")


class _LocalHeader:
    def __init__(self, content: bytes) -> None:
        fields = _LOCAL.unpack(content)
        if fields[0] in (b"PK\x01\x02", b"PK\x05\x06"):
            raise _Ended("The archive has no more members.")
        if fields[0] != b"PK\x03\x04":
            raise SourceError("The archive is damaged: a member's header is not where it should be.")
        self.flags: int = fields[2]
        self.method: int = fields[3]
        self.compressed: int = fields[7]
        self.plain: int = fields[8]
        self.name_length: int = fields[9]
        self.extra_length: int = fields[10]


class _Ended(SourceError):
    """There are no more members."""


class _Reader:
    """Counts bytes out of a stream of chunks."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._held = b""

    async def some(self) -> bytes:
        """The next bytes, at least one."""
        if self._held:
            chunk, self._held = self._held, b""
            return chunk
        async for chunk in self._chunks:
            return chunk
        raise _Ended("The archive ends in the middle of a member.")

    async def exactly(self, count: int) -> bytes:
        parts, missing = [], count
        while missing:
            chunk = await self.some()
            parts.append(chunk[:missing])
            self.give_back(chunk[missing:])
            missing -= len(parts[-1])
        return b"".join(parts)

    async def skip(self, count: int) -> None:
        while count:
            chunk = await self.some()
            self.give_back(chunk[count:])
            count -= min(count, len(chunk))

    def give_back(self, chunk: bytes) -> None:
        if chunk:
            self._held = chunk + self._held

    async def aclose(self) -> None:
        close = getattr(self._chunks, "aclose", None)
        if close is not None:
            await close()


def _text(name: bytes, flags: int) -> str:
    return name.decode("utf-8" if flags & 0x800 else "cp437", "replace")
