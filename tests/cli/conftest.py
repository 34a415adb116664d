"""A fake daemon, a home folder of the test's own, and `puna` as a user types it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from tests.cli.fake_daemon import TIMEOUT, FakeDaemon

PUNA = [sys.executable, "-P", "-m", "cli"]


class Puna(Protocol):
    def __call__(self, *arguments: str, stdin: str = "", code: int = 0) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture
def daemon() -> Iterator[FakeDaemon]:
    with FakeDaemon() as daemon:
        yield daemon


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def environment(daemon: FakeDaemon, home: Path) -> dict[str, str]:
    """What a command line needs to talk to the fake daemon."""
    return environment_for(home, daemon.host)


def environment_for(home: Path, host: str) -> dict[str, str]:
    dropped = ("PUNA_", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "CI")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    return kept | {"PUNA_HOME": str(home), "PUNA_HOST": host, "LC_ALL": "C.UTF-8", "TERM": "xterm-256color"}


@pytest.fixture
def puna(environment: dict[str, str], tmp_path: Path) -> Puna:
    def run(*arguments: str, stdin: str = "", code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*PUNA, *arguments],
            env=environment,
            cwd=tmp_path,
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            timeout=TIMEOUT,
            check=False,
        )
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in done.stdout + done.stderr
        return done

    return run
