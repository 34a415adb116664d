"""Talks with the program in mortal_puller: another process that downloads, and may be killed at any moment."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from registry.digest import Digest
from tests.registry.downloads_rig import Rig
from tests.registry.mortal_puller import COUNTER


class MortalPuller:
    """Talks with the program in mortal_puller."""

    def __init__(self, process: subprocess.Popen[bytes], counter: Path) -> None:
        self._counter = counter
        assert process.stdin is not None
        assert process.stdout is not None
        self._out, self._into = process.stdout, process.stdin
        self._child = 0
        self.shown = 0
        self.is_done = False

    @property
    def received(self) -> int:
        """Bytes of the model that all of its children together have been given."""
        return int(COUNTER.unpack(self._counter.read_bytes())[0])

    def start(self) -> int:
        self._into.write(b"pull\n")
        self._into.flush()
        self._child = int(self._until(b"child ").split()[1])
        return self._child

    def wait(self) -> None:
        self._into.write(b"wait\n")
        self._into.flush()
        self._until(b"gone")
        self._child = 0

    def end(self) -> None:
        """Let no child outlive its test."""
        if self._child:
            os.kill(self._child, signal.SIGKILL)

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
def mortal_puller(rig: Rig, source: str | None = None) -> Iterator[MortalPuller]:
    """It pulls the rig's model, from `source` as mortal_puller understands it."""
    counter = rig.folder / "received"
    counter.write_bytes(COUNTER.pack(0))
    arguments = [
        str(rig.store.root),
        source or f"{rig.server.url}/model",
        str(Digest.of(rig.content)),
        str(len(rig.content)),
        str(counter),
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.registry.mortal_puller", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    puller = MortalPuller(process, counter)
    try:
        yield puller
    finally:
        puller.end()
        process.communicate(timeout=20)
