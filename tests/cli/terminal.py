"""A command in a pseudo-terminal, and the screen as a person would see it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pexpect
import pyte

from tests.cli.conftest import PUNA
from tests.cli.fake_daemon import TIMEOUT

CTRL_C, CTRL_D, CTRL_J = "\x03", "\x04", "\x0a"
ENTER, UP = "\r", "\x1b[A"


class Terminal:
    """What runs in it is typed to with `type`, and looked at with `wait_for` and `text`."""

    def __init__(self, child: pexpect.spawn[str], columns: int, lines: int) -> None:
        self.child = child
        self.raw = ""
        self._screen = pyte.HistoryScreen(columns, lines, history=10_000, ratio=1)
        self._stream = pyte.Stream(self._screen)

    def type(self, text: str) -> None:
        self.child.send(text)

    def paste(self, text: str) -> None:
        """As terminals do it that tell a paste from typing."""
        self.child.send(f"\x1b[200~{text}\x1b[201~")

    def text(self) -> str:
        """Everything on the screen and above it, without blanks at the ends of lines."""
        above = [
            "".join(line[column].data for column in range(self._screen.columns)) for line in self._screen.history.top
        ]
        return "\n".join(line.rstrip() for line in [*above, *self._screen.display]).rstrip()

    def wait_for(self, pattern: str) -> str:
        """Read until the text matches; the whole text then."""
        deadline = time.monotonic() + TIMEOUT
        while not re.search(pattern, self.text(), re.MULTILINE):
            assert time.monotonic() < deadline, f"{pattern!r} does not appear in:\n{self.text()}"
            self._read()
        return self.text()

    def wait_for_end(self) -> int:
        """Read to the end; the exit code."""
        deadline = time.monotonic() + TIMEOUT
        while self._read():
            assert time.monotonic() < deadline, f"it does not end:\n{self.text()}"
        self.child.wait()
        assert self.child.exitstatus is not None
        return self.child.exitstatus

    def _read(self) -> bool:
        try:
            output = self.child.read_nonblocking(65536, timeout=0.05)
        except pexpect.TIMEOUT:
            return True
        except pexpect.EOF:
            return False
        self.raw += output
        self._stream.feed(output)
        # prompt-toolkit asks where the cursor is; a terminal answers.
        for _ in range(output.count("\x1b[6n")):
            self.child.send(f"\x1b[{self._screen.cursor.y + 1};{self._screen.cursor.x + 1}R")
        return True


@contextmanager
def terminal(environment: dict[str, str], *arguments: str, columns: int = 100, lines: int = 40) -> Iterator[Terminal]:
    """`puna` with these arguments in a terminal of its own."""
    child = pexpect.spawn(
        PUNA[0],
        [*PUNA[1:], *arguments],
        env=environment,
        encoding="utf-8",
        codec_errors="replace",
        dimensions=(lines, columns),
        echo=False,
    )
    child.delaybeforesend = None
    try:
        yield Terminal(child, columns, lines)
    finally:
        child.close(force=True)
