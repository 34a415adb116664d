"""What people see when something dies, leaves or does not fit."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.end_to_end.conftest import MODEL, TIMEOUT, Daemon, running_daemon

ENDLESS = {"model": MODEL, "prompt": "Write a very long story.", "options": {"temperature": 0, "num_predict": 2000}}


def records(response: httpx.Response) -> Iterator[dict[str, Any]]:
    for line in response.iter_lines():
        yield json.loads(line)


def assert_answers(daemon: Daemon) -> None:
    body = {"model": MODEL, "prompt": "Hello", "stream": False, "options": {"num_predict": 4}}
    answer = daemon.client.post("/api/generate", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["done"]


def test_a_killed_worker_ends_its_request_with_an_error_and_the_next_one_works(daemon: Daemon) -> None:
    with daemon.client.stream("POST", "/api/generate", json=ENDLESS) as response:
        stream = records(response)
        next(stream)
        [worker] = daemon.workers()
        worker.send_signal(signal.SIGKILL)
        last = list(stream)[-1]
    assert last["code"] == "engine_crashed"
    assert last["request_id"]
    assert "done" not in last
    assert_answers(daemon)
    [model] = daemon.loaded()
    assert model["restarts"] == 1


def test_a_killed_worker_fails_an_unstreamed_request_with_a_500(daemon: Daemon) -> None:
    answers: list[httpx.Response] = []
    asking = threading.Thread(
        target=lambda: answers.append(daemon.client.post("/api/generate", json=ENDLESS | {"stream": False}))
    )
    asking.start()
    try:
        daemon.wait_until_busy()
        daemon.workers()[0].send_signal(signal.SIGKILL)
    finally:
        asking.join(TIMEOUT)
    [answer] = answers
    assert answer.status_code == 500
    assert answer.json()["code"] == "engine_crashed"
    assert_answers(daemon)


def test_one_models_death_is_not_noticed_by_another(daemon: Daemon) -> None:
    from tests.end_to_end.test_cli import create_tiny

    create_tiny(daemon, "tiny")
    tiny = {"model": "tiny", "prompt": "x", "stream": False, "options": {"num_predict": 2}}
    assert daemon.client.post("/api/generate", json=tiny).status_code == 200
    [first] = daemon.workers()
    with daemon.client.stream("POST", "/api/generate", json=ENDLESS) as response:
        stream = records(response)
        next(stream)
        first.send_signal(signal.SIGKILL)
        for _ in range(20):
            assert "error" not in next(stream)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_is_cancelled(daemon: Daemon, stream: bool) -> None:
    host, port = daemon.url.removeprefix("http://").split(":")
    body = json.dumps(ENDLESS | {"stream": stream}).encode()
    with socket.create_connection((host, int(port))) as connection:
        head = f"POST /api/generate HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        daemon.wait_until_busy()
    left = time.monotonic()
    daemon.wait_until_idle()
    assert time.monotonic() - left < 10, "2,000 tokens would have taken longer"


def test_a_daemon_that_is_stopped_ends_its_streams_with_an_error_and_leaves_nothing(
    models: Path, tmp_path: Path
) -> None:
    (tmp_path / "config.toml").write_text("[worker]\ndrain_seconds = 1\n")
    with running_daemon(tmp_path, models) as daemon:
        with daemon.client.stream("POST", "/api/generate", json=ENDLESS) as response:
            stream = records(response)
            next(stream)
            workers = daemon.workers()
            daemon.process.send_signal(signal.SIGTERM)
            last = list(stream)[-1]
        assert last["code"] == "server_shutdown"
        assert daemon.process.wait(TIMEOUT) == 0
        assert psutil.wait_procs(workers, timeout=10)[1] == []


def test_a_killed_daemon_takes_its_workers_along(models: Path, tmp_path: Path) -> None:
    with running_daemon(tmp_path, models) as daemon:
        assert_answers(daemon)
        workers = daemon.workers()
        assert workers
        os.kill(daemon.process.pid, signal.SIGKILL)
        daemon.process.wait(TIMEOUT)
        assert psutil.wait_procs(workers, timeout=10)[1] == []


def test_a_damaged_model_is_refused_by_name(daemon: Daemon, models: Path) -> None:
    [blob] = [path for path in (models / "blobs").iterdir() if path.stat().st_size > 50_000_000]
    content = blob.read_bytes()
    blob.unlink()
    blob.write_bytes(content[:-4096] + b"\0" * 4096)
    answer = daemon.client.post("/api/generate", json={"model": MODEL, "prompt": "hi"})
    assert answer.status_code == 500
    assert answer.json()["code"] == "model_corrupt"


def test_the_window_grows_when_a_request_needs_it_and_nothing_is_loaded_again(models: Path, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(f'[models."{MODEL}"]\nnum_ctx = 512\n')
    with running_daemon(tmp_path, models) as daemon:
        assert_answers(daemon)
        assert daemon.loaded()[0]["context_length"] == 512
        body = {"model": MODEL, "prompt": "word " * 700, "stream": False, "options": {"num_predict": 2}}
        refused = daemon.client.post("/api/generate", json=body)
        assert refused.status_code == 400
        assert refused.json()["code"] == "context_length_exceeded"
        assert refused.json()["largest_context_length"] > 512
        assert daemon.loaded()[0]["context_length"] == 512, "nobody who may not use it makes it grow"
        taken = daemon.client.post("/api/generate", json=body | {"options": {"num_predict": 2, "num_ctx": 1024}})
        assert taken.status_code == 200
        [model] = daemon.loaded()
        assert model["context_length"] == 1024
        assert model["last_reload_reason"] is None
        assert model["grown"]["count"] == 1
        assert model["restarts"] == 0
