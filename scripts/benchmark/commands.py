"""How long commands take, beside an interpreter that does nothing."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmark.rows import Figures
from benchmark.servers import Server


def command_times(server: Server, runs: int) -> Figures:
    """Milliseconds of each, the median of several runs that take turns; `puna list` asks the running daemon."""
    commands = {
        "command_python": [sys.executable, "-c", "pass"],
        "command_version": [*_puna(), "--version"],
        "command_list": [*_puna(), "list"],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(runs):
        for name, command in commands.items():
            times[name].append(_seconds(command, os.environ | server.environment) * 1000)
    return {name: statistics.median(values) for name, values in times.items()}


def _puna() -> list[str]:
    """The installed command, beside the interpreter that runs this."""
    program = Path(sys.executable).with_name("puna.exe" if os.name == "nt" else "puna")
    return [str(program)] if program.exists() else [sys.executable, "-P", "-m", "cli"]


def _seconds(command: Sequence[str], environment: dict[str, str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    return time.perf_counter() - started
