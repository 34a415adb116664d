"""Verifying what is here, and fetching again no more than what is damaged."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import pytest

from registry.content_hash import CHUNK_BYTES
from registry.errors import DigestMismatch, ModelCorrupt, SourceError, SourceUnreachable
from registry.progress import Notice, Progress
from registry.repair import repair
from registry.sources.resolved import Find, ResolvedModel
from registry.verify import FileState, Verification, verify
from tests.registry.downloads_rig import NAME, Rig, model_bytes
from tests.registry.file_server import FileServer

pytestmark = pytest.mark.usefixtures("unhurried")


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """A model of two and a half chunks, which is installed."""
    with FileServer().running() as server:
        rig = Rig(tmp_path, server, model_bytes(5 * CHUNK_BYTES // 2))
        asyncio.run(rig.pull())
        yield rig


async def found(steps: AsyncGenerator[Progress | Verification]) -> Verification:
    (verification,) = [step async for step in steps if isinstance(step, Verification)]
    return verification


def find(rig: Rig) -> Find:
    async def resolve(notice: Notice) -> ResolvedModel:
        return ResolvedModel((rig.file,))

    return resolve


def path_of(rig: Rig) -> Path:
    return rig.store.find(NAME).model_path


def damage(rig: Rig, at: int) -> None:
    """Change one byte, and hide it as failing disks do: the times stay."""
    path = path_of(rig)
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


async def repaired(rig: Rig) -> list[Progress | Verification]:
    return [step async for step in repair(rig.store, rig.puller(), NAME, [find(rig)])]


async def test_a_sound_model_is_found_sound_and_left_alone(rig: Rig) -> None:
    sent = rig.server.sent
    verification = await found(verify(rig.store, [rig.store.find(NAME)]))
    assert verification.unsound == ()
    assert len(verification.files) == 2
    await repaired(rig)
    assert rig.server.sent == sent


async def test_damage_is_found_where_it_is_and_told_from_then_on(rig: Rig) -> None:
    damage(rig, CHUNK_BYTES + 5)
    assert not rig.store.find(NAME).is_damaged
    verification = await found(verify(rig.store, [rig.store.find(NAME)]))
    (verdict,) = verification.unsound
    assert verdict.state is FileState.DAMAGED
    assert verdict.damaged == ((CHUNK_BYTES, 2 * CHUNK_BYTES),)
    assert rig.store.find(NAME).is_damaged
    with pytest.raises(ModelCorrupt):
        rig.store.find(NAME).verify_unchanged()


async def test_a_repair_fetches_the_damaged_chunk_alone(rig: Rig) -> None:
    damage(rig, CHUNK_BYTES + 5)
    sent = rig.server.sent
    steps = await repaired(rig)
    assert rig.server.sent - sent == CHUNK_BYTES
    rig.check_installed()
    assert not rig.store.find(NAME).is_damaged
    assert isinstance(steps[-1], Progress)
    assert steps[-1].status == "success"


async def test_a_source_that_knows_no_digests_serves_too(rig: Rig) -> None:
    damage(rig, 5)
    rig.is_digest_known = rig.is_size_known = False
    before = rig.server.sent
    await repaired(rig)
    rig.check_installed()
    assert rig.server.sent - before == CHUNK_BYTES


async def test_another_file_than_it_was_is_not_taken(rig: Rig) -> None:
    damage(rig, 5)
    rig.is_digest_known = rig.is_size_known = False
    for other in (b"x" + rig.content[1:], rig.content + b"more"):
        rig.server.files["/model"] = other
        with pytest.raises((DigestMismatch, SourceError)):
            await repaired(rig)
        assert rig.store.find(NAME).is_damaged
        assert rig.kept() == len(rig.content) - CHUNK_BYTES
    rig.server.files["/model"] = rig.content
    before = rig.server.sent
    await repaired(rig)
    rig.check_installed()
    assert rig.server.sent - before == CHUNK_BYTES


async def test_a_pull_of_a_model_known_to_be_damaged_does_the_same(rig: Rig) -> None:
    damage(rig, 5)
    await found(verify(rig.store, [rig.store.find(NAME)]))
    sent = rig.server.sent
    await rig.pull()
    assert rig.server.sent - sent == CHUNK_BYTES
    rig.check_installed()


async def test_a_file_that_has_another_name_elsewhere_is_not_written_to(rig: Rig, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.gguf"
    damage(rig, 5)
    os.link(path_of(rig), elsewhere)
    damaged = elsewhere.read_bytes()
    sent = rig.server.sent
    await repaired(rig)
    assert rig.server.sent - sent == CHUNK_BYTES
    rig.check_installed()
    assert elsewhere.read_bytes() == damaged


@pytest.mark.parametrize("length", [0, 100, CHUNK_BYTES + 100])
async def test_a_file_cut_short_gets_its_end_back(rig: Rig, length: int) -> None:
    os.truncate(path_of(rig), length)
    sent = rig.server.sent
    await repaired(rig)
    rig.check_installed()
    assert rig.server.sent - sent == len(rig.content) - length // CHUNK_BYTES * CHUNK_BYTES


async def test_a_missing_file_is_fetched_whole(rig: Rig) -> None:
    path_of(rig).unlink()
    verification = await found(verify(rig.store, [rig.store.find(NAME)]))
    assert verification.unsound[0].state is FileState.MISSING
    await repaired(rig)
    rig.check_installed()


async def test_a_config_that_was_made_here_is_made_again(rig: Rig) -> None:
    config = rig.store.find(NAME).manifest.config.digest
    content = rig.store.blob_path(config).read_bytes()
    rig.store.blob_path(config).write_bytes(b"x" * len(content))
    await repaired(rig)
    assert rig.store.blob_path(config).read_bytes() == content


async def test_a_file_that_nobody_has_any_more_is_told_and_the_rest_stays(rig: Rig) -> None:
    damage(rig, 5)

    async def gone(notice: Notice) -> ResolvedModel:
        return ResolvedModel(())

    async def unreachable(notice: Notice) -> ResolvedModel:
        raise SourceUnreachable("nobody there")

    for finds, expected in (
        ([gone], ModelCorrupt),
        ([unreachable], SourceUnreachable),
        ([unreachable, gone], ModelCorrupt),
    ):
        with pytest.raises(expected):
            async for _ in repair(rig.store, rig.puller(), NAME, finds):
                pass
    assert path_of(rig).stat().st_size == len(rig.content)
    await repaired(rig)
    rig.check_installed()
