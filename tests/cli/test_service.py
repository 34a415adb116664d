"""The background daemon, really started: once, with its reasons when it does not start, and stopped again."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cli.service import last_lines
from tests.cli.conftest import PUNA, environment_for

TIMEOUT = 90


@pytest.fixture
def environment(home: Path) -> Iterator[dict[str, str]]:
    with socket.socket() as finder:
        finder.bind(("127.0.0.1", 0))
        port = finder.getsockname()[1]
    environment = environment_for(home, f"127.0.0.1:{port}")
    yield environment
    pid = daemon_pid(home)
    if pid is not None and psutil.pid_exists(pid):
        psutil.Process(pid).kill()
        psutil.Process(pid).wait(TIMEOUT)
        pytest.fail("a daemon was left running")


def daemon_pid(home: Path) -> int | None:
    try:
        return int(json.loads((home / "state" / "daemon.json").read_text())["pid"])
    except FileNotFoundError:
        return None


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PUNA, *arguments], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=TIMEOUT, check=False,
    )  # fmt: skip


def test_commands_at_once_start_one_daemon_that_outlives_them(environment: dict[str, str], home: Path) -> None:
    commands = [
        subprocess.Popen(
            [*PUNA, "list", "--json"], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )
        for _ in range(3)
    ]  # fmt: skip
    outputs = [command.communicate(timeout=TIMEOUT) for command in commands]
    assert [command.returncode for command in commands] == [0, 0, 0], outputs
    assert [json.loads(output) for output, _ in outputs] == [{"models": []}] * 3
    assert sum("Starting the Puna daemon" in error for _, error in outputs) == 1
    pid = daemon_pid(home)
    assert pid is not None
    assert psutil.Process(pid).cmdline()[1:4] == ["-P", "-m", "runner"]
    if os.name != "nt":
        assert os.getsid(pid) == pid
    again = run(environment, "list")
    assert (again.returncode, again.stderr) == (0, "")
    stopped = run(environment, "stop", "--daemon")
    assert (stopped.returncode, stopped.stdout) == (0, "The daemon has stopped.\n"), stopped
    assert not psutil.pid_exists(pid)
    assert "not running" in run(environment, "stop", "--daemon").stderr


def test_a_second_daemon_of_a_home_is_stopped_by_its_address(environment: dict[str, str]) -> None:
    with socket.socket() as finder:
        finder.bind(("127.0.0.1", 0))
        second = environment | {"PUNA_HOST": f"127.0.0.1:{finder.getsockname()[1]}"}
    assert run(environment, "list").returncode == 0
    assert run(second, "list").returncode == 0
    stopped = [run(each, "stop", "--daemon").stdout for each in (environment, second)]
    assert stopped == ["The daemon has stopped.\n"] * 2


def test_looking_at_or_stopping_models_starts_nothing(environment: dict[str, str], home: Path) -> None:
    shown = run(environment, "ps", "--json")
    assert (shown.returncode, json.loads(shown.stdout)) == (0, {"models": []})
    assert run(environment, "stop", "anything").returncode == 0
    assert not home.exists()


def test_a_daemon_that_cannot_start_says_why(environment: dict[str, str], home: Path) -> None:
    home.mkdir()
    (home / "config.toml").write_text('[worker]\nkeep_alive = "5 parsecs"\n')
    failed = run(environment, "list")
    assert failed.returncode == 78
    assert "worker.keep_alive" in failed.stderr
    assert "Traceback" not in failed.stderr
    (home / "config.toml").unlink()


def test_files_that_cannot_be_written_are_told(environment: dict[str, str], home: Path) -> None:
    home.mkdir()
    (home / "state").mkdir()
    (home / "state" / "daemon-start.lock").mkdir()
    done = run(environment, "list")
    assert done.returncode in (1, 77)
    assert "PUNA_HOME puts Puna's files elsewhere" in done.stderr
    (home / "state" / "daemon-start.lock").rmdir()
    (home / "logs").write_text("in the way")
    done = run(environment, "list")
    assert done.returncode == 1
    assert "logs" in done.stderr and "PUNA_HOME" in done.stderr


def test_a_daemon_elsewhere_is_not_started_for(environment: dict[str, str]) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        environment["PUNA_HOST"] = f"https://127.0.0.1:{closed.getsockname()[1]}"
        failed = run(environment, "list")
    assert failed.returncode == 69
    assert "PUNA_HOST" in failed.stderr


def test_serve_tells_who_has_the_address(environment: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        failed = run(environment, "serve", "--host", f"127.0.0.1:{taken.getsockname()[1]}")
    assert failed.returncode == 48
    assert "in use" in failed.stderr


def test_serve_does_not_open_the_house_by_itself(environment: dict[str, str]) -> None:
    failed = run(environment, "serve", "--host", "0.0.0.0:0")
    assert failed.returncode == 77
    assert "--insecure" in failed.stderr


def test_the_end_of_a_log_is_read_whatever_it_is(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert last_lines(log) == []
    log.write_bytes(b"\xff\n" + b"x" * 100_000 + b"\n" + b"".join(b"%d\n" % number for number in range(50)))
    assert last_lines(log) == [str(number) for number in range(38, 50)]
