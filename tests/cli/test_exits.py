"""What goes wrong around a command: exit codes, output that cannot be written, a daemon that is none."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from cli.outcome import exit_code_of
from tests.cli.conftest import PUNA, Puna
from tests.cli.fake_daemon import SMOL, TIMEOUT, FakeDaemon, answer, refusal


def test_the_version_is_that_of_the_project(puna: Puna, daemon: FakeDaemon) -> None:
    import tomllib

    project = tomllib.loads(Path(__file__).parents[2].joinpath("pyproject.toml").read_text())["project"]
    for spelling in ("--version", "-V"):
        assert puna(spelling).stdout == f"puna {project['version']}\n"
    assert daemon.requests == []


@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")
def test_a_reader_that_leaves_ends_it_quietly(daemon: FakeDaemon, environment: dict[str, str]) -> None:
    daemon.routes["GET /api/tags"] = lambda _: {"models": [SMOL] * 5000}
    command = f"set -o pipefail; {' '.join(PUNA)} list | head -1"
    done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, timeout=TIMEOUT, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"NAME")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no disk that is always full")
@pytest.mark.parametrize("arguments", [("--version",), ("--help",), ("list",), ("run", "m", "hi")])
def test_output_that_cannot_be_written_is_told(
    daemon: FakeDaemon, environment: dict[str, str], arguments: tuple[str, ...]
) -> None:
    daemon.routes["POST /api/generate"] = lambda _: answer("Hello.")
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*PUNA, *arguments], env=environment, stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE,
            text=True, timeout=TIMEOUT, check=False,
        )  # fmt: skip
    assert done.returncode == 28, done.stderr
    assert done.stderr.startswith("Error: What there is to say cannot be written (No space left on device).")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(os.name == "nt", reason="made by a shell of Unix")
@pytest.mark.parametrize("arguments", ["--version", "list", "--help"])
def test_closed_output_is_nothing_to_stumble_over(
    daemon: FakeDaemon, environment: dict[str, str], arguments: str
) -> None:
    command = f'exec "$@" {arguments} >&- 2>&-'
    done = subprocess.run(
        ["sh", "-c", command, "sh", *PUNA], env=environment, stdin=subprocess.DEVNULL, timeout=TIMEOUT, check=False
    )
    assert done.returncode == 0


@pytest.mark.skipif(os.name == "nt", reason="arguments are always text there")
def test_arguments_that_are_no_text_are_told(puna: Puna, daemon: FakeDaemon) -> None:
    done = puna("run", "m", os.fsdecode(b"\xff"), code=2)
    assert "not UTF-8" in done.stderr
    assert not daemon.asked("POST /api/generate")


def test_what_a_locale_cannot_show_is_replaced(daemon: FakeDaemon, environment: dict[str, str]) -> None:
    daemon.routes["POST /api/generate"] = lambda _: answer("ünï 🦙 ok")
    done = subprocess.run(
        [*PUNA, "run", "smol", "x"], env=environment | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
        stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, b"?n? ? ok\n")


@pytest.mark.parametrize(
    ("status", "code", "exit_code"),
    [
        (507, "disk_full", 28), (404, "model_not_found", 66), (502, "registry_unreachable", 69),
        (503, "server_shutdown", 69), (500, "engine_crashed", 70), (403, "host_forbidden", 77),
        (409, "store_read_only", 77), (400, "invalid_request", 2), (500, "internal", 1), (503, "queue_full", 1),
    ],
)  # fmt: skip
def test_exit_codes_follow_the_error_codes(
    daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    status: int, code: str, exit_code: int,
) -> None:  # fmt: skip
    monkeypatch.setenv("PUNA_HOST", daemon.host)
    daemon.routes["GET /api/tags"] = lambda _: refusal(status, code, "it did not work")
    assert exit_code_of(["list"]) == exit_code
    error = capsys.readouterr().err
    assert error.startswith("Error: it did not work.")
    assert len(error.splitlines()) == 1


def test_an_unforeseen_error_goes_into_a_log(puna: Puna, daemon: FakeDaemon, home: Path) -> None:
    daemon.routes["GET /api/tags"] = lambda _: {"models": [{"unexpected": True}]}
    error = puna("list", code=1).stderr
    log = home / "logs" / "puna-crash.log"
    assert str(log) in error
    assert "KeyError" in log.read_text()


def test_a_stranger_at_the_address_is_not_taken_for_the_daemon(puna: Puna, daemon: FakeDaemon) -> None:
    del daemon.routes["GET /api/version"]
    assert "not Puna's daemon" in puna("list", code=69).stderr


def test_a_daemon_of_another_version_is_warned_about_once(puna: Puna, daemon: FakeDaemon) -> None:
    daemon.routes["GET /api/version"] = lambda _: {"version": "9.9.9"}
    error = puna("list").stderr
    assert error.count("Warning") == 1
    assert "9.9.9" in error


def test_a_broken_setting_is_exit_code_78(puna: Puna, environment: dict[str, str]) -> None:
    environment["PUNA_HOST"] = "127.0.0.1:notaport"
    assert "PUNA_HOST" in puna("list", code=78).stderr
