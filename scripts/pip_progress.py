"""pip or a build, with its long output turned into one moving line: what it does now, and how far it has come.

Where nobody watches a terminal, a line is written when something new begins and every so often in between.
Everything that was said goes into a log.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, TextIO

LINE_SECONDS = 15.0
PHASE_SECONDS = 3.0
"""How long a line stands at least where every line is kept, although something else has begun."""
_REDRAW_SECONDS = 0.1
_LAST_LINES = 25

_PERCENT = re.compile(r"\s*\[\s*([0-9]{1,3})%\]\s+(.*)")
_STEPS = re.compile(r"\s*\[([0-9]+)/([0-9]+)\]\s+(.*)")
_PHASES = (
    (re.compile(r"\s*Building wheel for (\S+)"), "building {}"),
    (re.compile(r"\s*Building editable for (\S+)"), "building {}"),
    (re.compile(r"\s*Running command pip subprocess to install build dependencies"), "fetching the build tools"),
    (re.compile(r"\s*Preparing (?:editable )?metadata"), "reading the package"),
    (re.compile(r"\s*Installing collected packages: (.*)"), "installing"),
    (re.compile(r"\s*Downloading (?:\S+/)?([A-Za-z0-9_.]+?)-[0-9]\S*(?: \(([^)]*)\))?"), "downloading {}"),
    (re.compile(r"\s*(?:Using cached|Processing) (?:\S+/)?([A-Za-z0-9_.]+?)-[0-9]\S*"), "taking {}"),
    (re.compile(r"\s*Collecting ([A-Za-z0-9_.-]+)"), "looking for {}"),
)


def run(
    command: list[str], log: Path, cwd: Path, phase: str = "starting pip", variables: Mapping[str, str] | None = None
) -> int:
    """Run pip or a build to its end and return its exit code; `variables` go into its environment.

    Interrupted, it is waited for, so that nothing goes on behind.
    """
    line = MovingLine(sys.stderr)
    with log.open("a", encoding="utf-8", errors="replace") as written:
        written.write(f"$ {' '.join(command)}\n")
        written.flush()
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, **(variables or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )
        assert process.stdout is not None
        reader = Reader(phase)
        try:
            for output in process.stdout:
                written.write(output)
                written.flush()
                line.show(reader.read(output))
            return process.wait()
        except BaseException:
            # Ctrl-C reached it as well; it takes away what it had half done.
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            raise
        finally:
            process.stdout.close()
            line.close()


def last_lines(log: Path) -> list[str]:
    """The end of the log, which tells why it gave up."""
    return log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LAST_LINES:]


class Step(NamedTuple):
    """What goes on, and how far it has come."""

    phase: str
    detail: str = ""


class Reader:
    """Makes a short line of what pip and the build behind it say."""

    def __init__(self, phase: str) -> None:
        self._phase = phase

    def read(self, output: str) -> Step:
        """What is going on after this line of output."""
        percent = _PERCENT.match(output)
        if percent is not None:
            return Step(self._phase, f"{int(percent[1])}%  {_shortened(percent[2])}")
        steps = _STEPS.match(output)
        if steps is not None:
            done, total = int(steps[1]), int(steps[2])
            return Step(self._phase, f"{100 * done // max(1, total)}%  {_shortened(steps[3])}")
        for pattern, phase in _PHASES:
            match = pattern.match(output)
            if match is not None:
                self._phase = phase.format(*match.groups())
                break
        return Step(self._phase)


class MovingLine:
    """One line that is written over on a terminal; elsewhere, lines now and then."""

    def __init__(self, stream: TextIO, seconds: float = LINE_SECONDS, phase_seconds: float = PHASE_SECONDS) -> None:
        self._stream = stream
        self._is_terminal = stream.isatty()
        self._seconds = _REDRAW_SECONDS if self._is_terminal else seconds
        self._phase_seconds = _REDRAW_SECONDS if self._is_terminal else phase_seconds
        self._shown = Step("")
        self._shown_at: float | None = None
        self._started = time.monotonic()

    def show(self, step: Step) -> None:
        """Show `step` if it is new and the last one has been there for long enough."""
        now = time.monotonic()
        patience = self._phase_seconds if step.phase != self._shown.phase else self._seconds
        if step == self._shown or (self._shown_at is not None and now - self._shown_at < patience):
            return
        self._shown, self._shown_at = step, now
        passed = int(now - self._started)
        line = f"  {passed // 60}:{passed % 60:02}  {step.phase}  {step.detail}".rstrip()
        if self._is_terminal:
            width = shutil.get_terminal_size().columns - 1
            self._stream.write(f"\r{line[:width]:<{width}}")
        else:
            self._stream.write(f"{line}\n")
        self._stream.flush()

    def close(self) -> None:
        """Leave nothing of the line on a terminal."""
        if self._is_terminal and self._shown_at is not None:
            self._stream.write("\r" + " " * (shutil.get_terminal_size().columns - 1) + "\r")
            self._stream.flush()


def _shortened(text: str) -> str:
    """A build's step without paths and flags: `Building CXX object ggml.cpp`, `Compiling ggml.cpp`."""
    compiled = re.search(r"\s-c\s+(?:\S*[/\\])?(\S+)", text)
    if compiled is not None:
        return f"Compiling {compiled[1]}"
    return re.sub(r"(Building \S+ object) (?:\S*/)?(\S+?)\.(?:o|obj)$", r"\1 \2", text.strip())
