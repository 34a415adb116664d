"""Downloads whose process is killed: nothing is lost but a piece of each connection, and nothing wrong is installed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.digest import Digest
from registry.journal import JournalReader
from registry.sources.http import HttpClient
from tests.registry.downloads_rig import NAME, Received, Rig, model_bytes
from tests.registry.file_server import NOTHING, Behaviour, FileServer
from tests.registry.mortal_puller import CHUNK_BYTES, PARALLEL, PIECE_BYTES
from tests.registry.other_puller import mortal_puller

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL")

KILLS = int(os.environ.get("PUNA_TEST_KILLS", "12"))
"""Fifty by hand, now and then."""
A_PIECE_OF_EACH = PARALLEL * (PIECE_BYTES + CHUNK_BYTES)
"""The most that a kill may take: each connection holds less than a piece when its last chunk comes."""


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with FileServer().running() as server:
        yield Rig(tmp_path, server, model_bytes(12_000_000))


def check_kept(rig: Rig) -> int:
    """What the journal says is there is there; what has a final name is right. Returns how much is kept."""
    for blob in rig.blobs:
        assert Digest.parse(blob.name) == Digest.of(blob.read_bytes())
    partial = rig.store.root / "partials" / Digest.of(rig.content).file_name
    reader = JournalReader(partial.with_name(partial.name + ".journal"))
    if not partial.exists() or not reader.refresh():
        return len(rig.content) if rig.blobs else 0
    content = partial.read_bytes()
    for start, end in reader.state.done:
        assert content[start:end] == rig.content[start:end]
    return reader.state.done.total


def test_a_download_killed_again_and_again_only_moves_forward(rig: Rig) -> None:
    asked = threading.Event()
    so_much_each_time = len(rig.content) // (KILLS + 1)
    moments = random.Random(4)
    kept = kills = before = 0
    rig.server.behaviour = Behaviour(
        bytes_per_second=lambda _: 350e3 if rig.server.sent - before < so_much_each_time else NOTHING,
        seen=lambda path: asked.set(),
    )
    with mortal_puller(rig) as puller:
        while kills < KILLS:
            before, received = rig.server.sent, puller.received
            asked.clear()
            child = puller.start()
            if kills % 5:
                assert asked.wait(20)
            time.sleep(moments.uniform(0, 0.2))  # the moment itself is what varies here
            os.kill(child, signal.SIGKILL)
            puller.wait()
            kills += 1
            was, kept = kept, check_kept(rig)
            assert kept >= was
            assert kept >= puller.shown
            assert puller.received - received <= kept - was + A_PIECE_OF_EACH
        assert 0 < kept < len(rig.content)
        rig.server.behaviour = Behaviour()
        puller.start()
        puller.wait()
        assert puller.is_done
    rig.check_installed()


async def test_another_process_follows_and_fetches_nothing_itself(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def open_nothing(*_: object, **__: object) -> None:
        raise AssertionError("this process asks the server")

    monkeypatch.setattr(HttpClient, "open", open_nothing)
    rig.server.behaviour = Behaviour(bytes_per_second=lambda _: 1e6)
    with mortal_puller(rig) as puller:
        await asyncio.to_thread(puller.start)
        await asyncio.to_thread(puller.until_shown, 500_000)
        steps = await rig.pull()
        await asyncio.to_thread(puller.wait)
        assert puller.is_done
    assert min(step.completed for step in steps if step.completed is not None) > 400_000
    rig.check_installed()


async def test_another_process_follows_and_takes_over_when_the_first_is_killed(rig: Rig, received: Received) -> None:
    rig.server.behaviour = Behaviour(bytes_per_second=lambda _: 350e3 if rig.server.sent < 6_000_000 else NOTHING)
    with mortal_puller(rig) as puller:
        child = puller.start()
        puller.until_shown(1_500_000)
        shown: list[int] = []
        kept = 0
        async with contextlib.aclosing(rig.puller().pull(NAME)) as steps:
            async for step in steps:
                if step.completed is None:
                    continue
                shown.append(step.completed)
                if step.completed > 2_000_000 and not kept:
                    os.kill(child, signal.SIGKILL)
                    puller.wait()
                    rig.server.behaviour = Behaviour()
                    kept = rig.kept()
        assert not puller.is_done
    assert shown == sorted(shown)
    assert shown[0] >= 1_000_000
    assert puller.received <= kept + A_PIECE_OF_EACH
    assert received.total == len(rig.content) - kept
    rig.check_installed()
