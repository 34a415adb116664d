"""Downloads whose process is killed: nothing is lost but a piece of each connection, and nothing wrong is installed."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.digest import Digest
from registry.journal import JournalReader
from tests.registry.downloads_rig import NAME, Rig, model_bytes
from tests.registry.file_server import Behaviour, FileServer
from tests.registry.mortal_puller import PARALLEL, PIECE_BYTES

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL")

KILLS = 50
UNDER_WAY = 64 << 10
"""What the kernel may hold of a connection, sent and not yet read."""


class MortalPuller:
    """Talks with the program in mortal_puller."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._out, self._into = process.stdout, process.stdin
        self.shown = 0
        self.is_done = False

    def start(self) -> int:
        self._into.write(b"pull\n")
        self._into.flush()
        return int(self._until(b"child ").split()[1])

    def wait(self) -> None:
        self._into.write(b"wait\n")
        self._into.flush()
        self._until(b"gone")

    def _until(self, beginning: bytes) -> bytes:
        """Read up to a line that begins so; what is shown on the way never goes back."""
        for line in self._out:
            if line.startswith(b"shown "):
                shown = int(line.split()[1])
                assert shown >= self.shown
                self.shown = shown
            self.is_done = self.is_done or line == b"done\n"
            if line.startswith(beginning):
                return line
        raise AssertionError("the program ended")

    def until_shown(self, count: int) -> None:
        while self.shown < count and not self.is_done:
            self._until(b"shown ")


@contextlib.contextmanager
def mortal_puller(rig: Rig) -> Iterator[MortalPuller]:
    arguments = [str(rig.store.root), f"{rig.server.url}/model", str(Digest.of(rig.content)), str(len(rig.content))]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.registry.mortal_puller", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    try:
        yield MortalPuller(process)
    finally:
        process.communicate(timeout=20)


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
    rig.server.behaviour = Behaviour(bytes_per_second=lambda _: 350e3, seen=lambda path: asked.set())
    moments = random.Random(4)
    kept = kills = 0
    with mortal_puller(rig) as puller:
        while kills < KILLS and kept < len(rig.content):
            before = rig.server.sent
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
            assert rig.server.sent - before <= kept - was + PARALLEL * (PIECE_BYTES + UNDER_WAY)
        assert kills == KILLS
        assert kept > len(rig.content) / 10
        rig.server.behaviour = Behaviour()
        puller.start()
        puller.wait()
        assert puller.is_done
    rig.check_installed()


async def test_another_process_follows_and_takes_over_when_the_first_is_killed(rig: Rig) -> None:
    rig.server.behaviour = Behaviour(bytes_per_second=lambda _: 350e3)
    with mortal_puller(rig) as puller:
        child = puller.start()
        puller.until_shown(1_500_000)
        shown: list[int] = []
        async with contextlib.aclosing(rig.puller().pull(NAME)) as steps:
            async for step in steps:
                if step.completed is None:
                    continue
                shown.append(step.completed)
                if step.completed > 2_000_000 and child:
                    assert all(request.first is not None for request in rig.server.requests)
                    os.kill(child, signal.SIGKILL)
                    child = 0
                    rig.server.behaviour = Behaviour()
        puller.wait()
        assert not puller.is_done
    assert shown == sorted(shown)
    assert shown[0] >= 1_000_000
    rig.check_installed()
    assert rig.server.sent <= len(rig.content) + PARALLEL * (PIECE_BYTES + UNDER_WAY)
