"""A whole daemon in its own process: start, refuse to start, stop in order."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from registry.create import create_model
from registry.name import ModelName
from registry.paths import Paths
from registry.recipe import Recipe
from registry.store import ModelStore
from runner.api_keys import KeyFile, KeyScope
from runner.runtime_file import RuntimeFile, read_runtime_file, remove_runtime_file, write_runtime_file
from tests.fake_worker import Script
from tests.kept_port import kept_port
from tests.runner.supervisor_fixtures import PATIENCE, process_is_gone
from tests.tiny_model import write_tiny_model

ROOT = Path(__file__).parent.parent.parent
PROGRAM = """
import os, sys
from registry.paths import Paths
from runner.daemon import serve
from runner.settings import load_settings
from tests.fake_worker import COMMAND

paths = Paths.from_environment(os.environ)
settings = load_settings(paths.config_file, os.environ)
sys.exit(serve(settings, paths, worker_command=(*COMMAND, "--script", os.environ["FAKE_SCRIPT"])))
"""

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="signals")


@dataclass
class Daemon:
    """A daemon with fake workers; its folder is its PUNA_HOME."""

    home: Path
    process: subprocess.Popen[str]

    @property
    def runtime(self) -> RuntimeFile:
        found: list[RuntimeFile] = []

        def look() -> bool:
            assert self.process.poll() is None, self.process.communicate()[1]
            told = read_runtime_file(paths_of(self.home).state)
            if told is not None and told.pid == self.process.pid:
                found.append(told)
            return bool(found)

        wait_until(look)
        return found[0]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.runtime.port}"

    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def end(self) -> tuple[int, str]:
        """Wait for its end; exit code and what it logged."""
        _, errors = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, errors

    @contextmanager
    def generate(self, prompt: str) -> Iterator[Iterator[dict[str, Any]]]:
        body = {"model": "tiny", "prompt": prompt, "raw": True}
        with httpx.stream("POST", f"{self.url}/api/generate", json=body, timeout=PATIENCE) as response:
            assert response.status_code == 200, response.read()
            yield (json.loads(line) for line in response.iter_lines())


def paths_of(home: Path) -> Paths:
    return Paths.from_environment({"PUNA_HOME": str(home)})


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def environment(home: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PUNA_")}
    return {**kept, "PUNA_HOME": str(home), "PUNA_HOST": "127.0.0.1:0", **more}


@contextmanager
def daemon(home: Path, *, script: Script | None = None, **environ: str) -> Iterator[Daemon]:
    home.mkdir(exist_ok=True)
    described = (script or Script()).write(home / "script.json")
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env=environment(home, FAKE_SCRIPT=str(described), **environ),
        stderr=subprocess.PIPE,
        text=True,
    )
    this = Daemon(home, process)
    try:
        yield this
    finally:
        workers = this.workers() if process.poll() is None else []
        process.kill()
        process.communicate()
        assert all(process_is_gone(worker.pid) for worker in workers)


def add_tiny_model(home: Path) -> None:
    async def create() -> None:
        store = ModelStore(paths_of(home).models)
        blob = store.add_blob([write_tiny_model(home / "tiny.gguf").read_bytes()])
        recipe = Recipe(ModelName.parse("tiny"), files={"tiny.gguf": blob.digest})
        async for _ in create_model(store, recipe):
            pass

    home.mkdir(exist_ok=True)
    asyncio.run(create())


def refused(home: Path, *arguments: str, **environ: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "runner", *arguments],
        env=environment(home, **environ),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


def test_a_daemon_tells_where_it_is_and_takes_that_back_at_the_end(tmp_path: Path) -> None:
    with daemon(tmp_path) as running:
        runtime = running.runtime
        assert (runtime.host, runtime.store) == ("127.0.0.1", str(paths_of(tmp_path).models))
        assert httpx.get(f"{running.url}/api/version").json() == {"version": runtime.version}
        running.process.terminate()
        code, log = running.end()
        assert code == 0 or sys.platform == "win32"
        assert f"listens on {running_url(runtime)}" in log
        assert read_runtime_file(paths_of(tmp_path).state) is None
        assert not (paths_of(tmp_path).state / "daemon.json").exists()


def running_url(runtime: RuntimeFile) -> str:
    return f"http://{runtime.host}:{runtime.port}"


def test_answers_stream_through_a_worker_and_prompts_stay_out_of_the_log(tmp_path: Path) -> None:
    add_tiny_model(tmp_path)
    with daemon(tmp_path) as running:
        with running.generate("say 3") as records:
            answer = list(records)
        assert [record["response"] for record in answer] == ["word1 ", "word2 ", "word3 ", ""]
        running.process.terminate()
        _, log = running.end()
        assert "tiny:latest: loaded" in log
        assert "say 3" not in log
        assert "word1" not in log


def test_a_daemon_clears_away_what_broken_off_pulls_left(tmp_path: Path) -> None:
    partial = paths_of(tmp_path).models / "partials" / "left-behind"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"half a model")
    os.utime(partial, (1, 1))
    with daemon(tmp_path) as running:
        assert running.runtime
        wait_until(lambda: not partial.exists())


def test_a_model_can_be_loaded_in_advance(tmp_path: Path) -> None:
    add_tiny_model(tmp_path)
    (tmp_path / "config.toml").write_text(
        '[models.absent]\npreload = true\n[models."tiny"]\npreload = true\nkeep_alive = -1\n'
    )
    with daemon(tmp_path) as running:
        wait_until(
            lambda: [row["name"] for row in httpx.get(f"{running.url}/api/ps").json()["models"]] == ["tiny:latest"]
        )


@posix_only
def test_running_answers_may_end_while_new_ones_are_refused(tmp_path: Path) -> None:
    add_tiny_model(tmp_path)
    with daemon(tmp_path) as running:
        url = running.url
        with running.generate(f"until {tmp_path / 'refused'}") as records:
            assert next(records)["response"] == "word1 "
            running.process.send_signal(signal.SIGTERM)
            body = {"model": "tiny", "prompt": "say 1", "raw": True}
            answers = []

            def is_refused() -> bool:
                answers.append(httpx.post(f"{url}/api/generate", json=body, timeout=PATIENCE))
                return answers[-1].status_code != 200

            wait_until(is_refused)
            assert answers[-1].status_code == 503
            assert answers[-1].json()["code"] == "server_shutdown"
            assert int(answers[-1].headers["Retry-After"]) > 0
            (tmp_path / "refused").touch()
            (last,) = records
        assert last["done"] is True
        assert running.end()[0] == 0


@posix_only
def test_answers_that_take_too_long_end_with_an_error(tmp_path: Path) -> None:
    add_tiny_model(tmp_path)
    with daemon(tmp_path, PUNA_DRAIN_SECONDS="0.2") as running:
        workers = []
        with running.generate("hold") as records:
            next(records)
            workers = running.workers()
            running.process.send_signal(signal.SIGINT)
            (last,) = records
        assert last["code"] == "server_shutdown"
        assert running.end()[0] == 0
        assert len(workers) == 1
        assert all(process_is_gone(worker.pid) for worker in workers)


@posix_only
def test_what_nobody_reads_does_not_keep_the_daemon_from_ending(tmp_path: Path) -> None:
    add_tiny_model(tmp_path)
    with daemon(tmp_path, PUNA_DRAIN_SECONDS="600") as running:
        body = {"model": "tiny", "input": "hold", "background": True}
        path = f"/v1/responses/{httpx.post(f'{running.url}/v1/responses', json=body, timeout=PATIENCE).json()['id']}"
        wait_until(lambda: httpx.get(f"{running.url}{path}", timeout=PATIENCE).json()["status"] == "in_progress")
        running.process.send_signal(signal.SIGTERM)
        assert running.end()[0] == 0


@posix_only
def test_a_second_signal_ends_everything_at_once(tmp_path: Path) -> None:
    add_tiny_model(tmp_path)
    with daemon(tmp_path) as running:
        with running.generate("hold") as records:
            next(records)
            workers = running.workers()
            running.process.send_signal(signal.SIGINT)
            assert running.process.stderr is not None
            wait_until(lambda: "stopping" in running.process.stderr.readline())  # type: ignore[union-attr]
            running.process.send_signal(signal.SIGINT)
            with pytest.raises((httpx.HTTPError, ValueError)):
                list(records)
        assert running.end()[0] == 130
        assert len(workers) == 1
        assert all(process_is_gone(worker.pid) for worker in workers)


@posix_only
def test_after_a_kill_nothing_is_left_and_the_next_daemon_takes_the_place(tmp_path: Path) -> None:
    add_tiny_model(tmp_path)
    with kept_port() as port, daemon(tmp_path, PUNA_HOST=f"127.0.0.1:{port}") as killed:
        with killed.generate("hold") as records:
            next(records)
            workers = killed.workers()
            killed.process.kill()
            assert len(workers) == 1
            assert all(process_is_gone(worker.pid) for worker in workers)
        killed.end()
        with daemon(tmp_path, PUNA_HOST=f"127.0.0.1:{port}") as following:
            assert following.runtime.port == port


def test_a_second_daemon_on_a_port_says_who_is_there(tmp_path: Path) -> None:
    with daemon(tmp_path / "first") as running:
        runtime = running.runtime
        for home in (tmp_path / "first", tmp_path / "second"):
            code, said = refused(home, "--host", f"127.0.0.1:{runtime.port}")
            assert code == 48
            assert f"a Puna daemon (version {runtime.version}, process {runtime.pid}" in said
            assert runtime.store in said
        assert read_runtime_file(paths_of(tmp_path / "first").state) == runtime


def test_a_stranger_on_the_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        code, said = refused(tmp_path, "--host", f"127.0.0.1:{port}")
    assert code == 48
    assert f"127.0.0.1:{port} is in use" in said
    assert f"process {os.getpid()}" in said or sys.platform == "darwin"
    assert "--host" in said
    assert "Puna daemon" not in said


def test_other_machines_are_let_in_only_when_that_is_said(tmp_path: Path) -> None:
    code, said = refused(tmp_path, "--host", "0.0.0.0:0")
    assert code == 77
    assert "--insecure" in said and "puna key create" in said
    with daemon(tmp_path, PUNA_HOST="0.0.0.0:0", PUNA_INSECURE="1") as running:
        assert httpx.get(f"{running.url}/api/version").status_code == 200


def test_where_other_machines_can_come_every_request_needs_a_key(tmp_path: Path) -> None:
    add_tiny_model(tmp_path)
    file = KeyFile.beside(paths_of(tmp_path).config_file)
    _, text = file.create("laptop", [KeyScope.INFER, KeyScope.READ])
    key = {"Authorization": f"Bearer {text}"}
    with daemon(tmp_path, PUNA_HOST="0.0.0.0:0") as running, httpx.Client(base_url=running.url) as client:
        for path in ("/", "/healthz", "/api/version", "/api/tags", "/v1/models"):
            assert (client.get(path).status_code, client.get(path, headers=key).status_code) == (401, 200)
        body = {"model": "tiny", "prompt": "say 2", "raw": True, "stream": False}
        assert client.post("/api/generate", json=body, headers={"x-api-key": text}).json()["response"] == "word1 word2 "
        assert client.request("DELETE", "/api/delete", json={"model": "tiny"}, headers=key).status_code == 403
        file.remove("laptop")
        assert client.post("/api/generate", json=body, headers=key).status_code == 401
        running.process.terminate()
        _, log = running.end()
    assert "every request needs an API key" in log
    assert text not in log


def test_keys_that_cannot_be_read_keep_the_daemon_from_starting(tmp_path: Path) -> None:
    KeyFile.beside(paths_of(tmp_path).config_file).path.write_text("{")
    for host in ("127.0.0.1:0", "0.0.0.0:0"):
        code, said = refused(tmp_path, "--host", host)
        assert (code, str(tmp_path / "keys.json") in said) == (78, True)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--host", "192.0.2.1:0"), 1, "192.0.2.1 is no address of this machine"),
        (("--host", f"{'x' * 64}:0"), 1, "is no address of this machine"),  # no name server is asked for this
        (("--host", "https://127.0.0.1:0"), 78, "plain http"),
        (("--host", "127.0.0.1:nine"), 78, "'nine' in '127.0.0.1:nine' is no port"),
    ],
)
def test_an_address_that_cannot_be_used_is_told(
    tmp_path: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    found_code, found = refused(tmp_path, *arguments, "--insecure")
    assert (found_code, said in found) == (code, True), found


def test_a_broken_configuration_keeps_the_daemon_from_starting(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[worker]\nkeepalive = 5\n")
    code, said = refused(tmp_path)
    assert code == 78
    assert f"{tmp_path / 'config.toml'}:2: unknown key 'keepalive'" in said


def test_the_log_goes_to_a_file_when_one_is_named(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "daemon.log"
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "runner", "--log-file", str(log)],
        env=environment(tmp_path),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: log.exists() and "listens on" in log.read_text())
        process.terminate()
        _, errors = process.communicate(timeout=PATIENCE)
        assert errors == ""
    finally:
        process.kill()
        process.communicate()


def test_headers_without_an_end_are_hung_up_on(tmp_path: Path) -> None:
    with daemon(tmp_path) as running, socket.create_connection(("127.0.0.1", running.runtime.port), PATIENCE) as client:
        client.sendall(b"GET /api/version HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Long: ")
        sent = 0
        with pytest.raises(OSError):
            while sent < 1 << 24:
                client.sendall(b"x" * 16384)
                sent += 16384
        assert sent < 1 << 24
        assert httpx.get(f"{running.url}/api/version").status_code == 200


def test_large_bodies_and_long_lived_connections_are_not_taken_for_long_headers(tmp_path: Path) -> None:
    with daemon(tmp_path) as running, httpx.Client(base_url=running.url) as client:
        for _ in range(5):
            answer = client.post("/api/show", json={"model": "absent", "system": "x" * 300_000})
            assert answer.status_code in (400, 404)


def test_the_runtime_file_of_a_dead_process_or_of_nonsense_counts_for_nothing(tmp_path: Path) -> None:
    assert read_runtime_file(tmp_path) is None
    now = datetime.now(UTC)
    mine = RuntimeFile(os.getpid(), "127.0.0.1", 1, "1", now, "/models")
    write_runtime_file(tmp_path, mine)
    assert read_runtime_file(tmp_path) == mine
    remove_runtime_file(tmp_path, os.getpid() + 1)
    assert read_runtime_file(tmp_path) == mine
    remove_runtime_file(tmp_path, os.getpid())
    assert read_runtime_file(tmp_path) is None
    write_runtime_file(tmp_path, RuntimeFile(os.getpid(), "h", 1, "1", now - timedelta(days=3650), "/"))
    assert read_runtime_file(tmp_path) is None, "a process that began after the file was written"
    (tmp_path / "daemon.json").write_text("{}")
    assert read_runtime_file(tmp_path) is None


@posix_only
def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where a folder should be")
    code, said = refused(tmp_path)
    assert code == 1
    assert "The daemon cannot run" in said
    assert str(tmp_path / "state") in said
