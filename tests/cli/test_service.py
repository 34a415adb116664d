"""The background daemon, really started: once, with its reasons when it does not start, and stopped again."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from cli.address import daemon_address
from cli.client import DaemonClient
from cli.service import last_lines
from tests.cli.conftest import PUNA, environment_for
from tests.kept_port import kept_port

TIMEOUT = 90
QUIET: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
HEARD: dict[str, Any] = {**QUIET, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}


@pytest.fixture
def environment(home: Path) -> Iterator[dict[str, str]]:
    with kept_port() as port:
        yield environment_for(home, f"127.0.0.1:{port}")
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


def wait_until_healthy(host: str) -> None:
    client = DaemonClient(daemon_address({"PUNA_HOST": host}))
    deadline = time.monotonic() + TIMEOUT
    while not client.is_healthy():
        assert time.monotonic() < deadline, "the daemon does not start"
        time.sleep(0.02)


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
    with kept_port() as port:
        both = [environment, environment | {"PUNA_HOST": f"127.0.0.1:{port}"}]
        # Side by side, which the command line would not do, since each takes a while to start and to stop.
        daemons = [subprocess.Popen([sys.executable, "-P", "-m", "runner"], env=each, **QUIET) for each in both]
        try:
            for each in both:
                wait_until_healthy(each["PUNA_HOST"])
            commands = [subprocess.Popen([*PUNA, "stop", "--daemon"], env=each, **HEARD) for each in both]
            for daemon in daemons:
                daemon.wait(TIMEOUT)
            told = [command.communicate(timeout=TIMEOUT)[0] for command in commands]
        finally:
            for daemon in daemons:
                daemon.kill()
                daemon.wait()
    assert told == ["The daemon has stopped.\n"] * 2


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
    environment["PUNA_HOST"] = f"https://{environment['PUNA_HOST']}"
    failed = run(environment, "list")
    assert failed.returncode == 69
    assert "PUNA_HOST" in failed.stderr


def test_serve_tells_who_has_the_address(environment: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        failed = run(environment, "serve", "--host", f"127.0.0.1:{taken.getsockname()[1]}")
    assert failed.returncode == 48
    assert "in use" in failed.stderr


def test_serve_tells_an_address_that_is_none(environment: dict[str, str]) -> None:
    failed = run(environment, "serve", "--host", "localhost:nonsense")
    assert failed.returncode == 2
    assert "--host: 'nonsense' in 'localhost:nonsense' is no port" in failed.stderr


def test_serve_does_not_open_the_house_by_itself(environment: dict[str, str]) -> None:
    failed = run(environment, "serve", "--host", "0.0.0.0:0")
    assert failed.returncode == 77
    assert "--insecure" in failed.stderr


def test_a_daemon_that_wants_keys_is_started_and_asked_with_the_key_of_its_file(
    environment: dict[str, str], home: Path
) -> None:
    port = environment.pop("PUNA_HOST").rpartition(":")[2]
    home.mkdir()
    config = home / "config.toml"
    config.write_text(f'[server]\nhost = "0.0.0.0:{port}"\n')
    failed = run(environment, "list")
    assert (failed.returncode, "puna key create NAME" in failed.stderr) == (77, True), failed.stderr
    key = run(environment, "key", "create", "own", "--scope", "read").stdout.strip()
    began = run(environment, "list")
    assert (began.returncode, "PUNA_API_KEY" in began.stderr) == (77, True), began.stderr
    assert run(environment | {"PUNA_API_KEY": key}, "list").returncode == 0
    config.write_text(f'{config.read_text()}[access]\napi_key = "{key}"\n')
    assert run(environment, "ps").returncode == 0
    forbidden = run(environment, "gc")
    assert (forbidden.returncode, '"manage"' in forbidden.stderr) == (77, True), forbidden.stderr
    stopped = run(environment, "stop", "--daemon")
    assert (stopped.returncode, stopped.stdout) == (0, "The daemon has stopped.\n"), stopped


def test_the_end_of_a_log_is_read_whatever_it_is(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert last_lines(log) == []
    log.write_bytes(b"\xff\n" + b"x" * 100_000 + b"\n" + b"".join(b"%d\n" % number for number in range(50)))
    assert last_lines(log) == [str(number) for number in range(38, 50)]
