"""What people see when something dies, leaves or does not fit."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.end_to_end.conftest import MODEL, TIMEOUT, Daemon, running_daemon
from tests.tiny_model import write_tiny_model

ENDLESS = {"model": MODEL, "prompt": "Write a very long story.", "options": {"temperature": 0, "num_predict": 2000}}


def records(response: httpx.Response) -> Iterator[dict[str, Any]]:
    for line in response.iter_lines():
        yield json.loads(line)


def assert_answers(daemon: Daemon) -> None:
    body = {"model": MODEL, "prompt": "Hello", "stream": False, "options": {"num_predict": 4}}
    answer = daemon.client.post("/api/generate", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["done"]


GREEDY = {"temperature": 0, "num_predict": 50}
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 30}},
            "required": ["city"],
        },
    },
}
STREAMS: list[tuple[str, dict[str, Any]]] = [
    ("/api/generate", {"prompt": "Write a long story about a lamp.", "options": GREEDY}),
    ("/api/generate", {"prompt": "Write a letter.", "options": GREEDY, "logprobs": True, "top_logprobs": 2}),
    (
        "/api/chat",
        {
            "messages": [{"role": "user", "content": "What is the weather in Paris?"}],
            "tools": [TOOL],
            "tool_choice": "required",
            "options": GREEDY,
        },
    ),
    ("/api/generate", {"prompt": "Count to twenty.", "options": GREEDY | {"deterministic": True}, "stream": False}),
    ("/api/embed", {"input": ["some", "texts"]}),
]


def ask_all(daemon: Daemon, began: threading.Event) -> list[list[dict[str, Any]]]:
    """All records of all `STREAMS`, which run at the same time; `began` is set when the first two have begun."""
    barrier = threading.Barrier(2, action=began.set)

    def ask(number: int) -> list[dict[str, Any]]:
        path, body = STREAMS[number]
        with daemon.client.stream("POST", path, json={"model": MODEL, **body}) as response:
            assert response.status_code == 200, response.read()
            lines = records(response)
            first = [next(lines)]
            if number < 2:
                barrier.wait(TIMEOUT)
            return [*first, *lines]

    with ThreadPoolExecutor(len(STREAMS)) as pool:
        return list(pool.map(ask, range(len(STREAMS))))


def said(answer: list[dict[str, Any]]) -> dict[str, Any]:
    """What has to be the same: not times, not ids, and of log-probabilities only whose they are."""
    calls = [call["function"] for record in answer for call in record.get("message", {}).get("tool_calls", ())]
    last = answer[-1]
    return {
        "text": "".join(record.get("response", "") for record in answer),
        "tokens": [token["token"] for record in answer for token in record.get("logprobs", ())],
        "calls": calls,
        "counts": (last.get("done_reason"), last.get("prompt_eval_count"), last.get("eval_count")),
        "errors": [record["error"] for record in answer if "error" in record],
        "vectors": [len(vector) for vector in last.get("embeddings", ())],
    }


@pytest.mark.parametrize("deterministic", [True, False])
def test_a_killed_worker_is_a_pause(daemon: Daemon, deterministic: bool) -> None:
    body = {"model": MODEL, **STREAMS[0][1]}
    body["options"] = GREEDY | {"deterministic": deterministic}
    undisturbed = said([*records(daemon.client.post("/api/generate", json=body))])
    for restarts, kill_at in enumerate((1, 40), 1):
        with daemon.client.stream("POST", "/api/generate", json=body) as response:
            stream = records(response)
            answer = [next(stream) for _ in range(kill_at)]
            before = said(answer)["text"]
            daemon.wait_for_worker().send_signal(signal.SIGKILL)
            answer += stream
        daemon.wait_until_restarted(restarts)
        if deterministic:
            assert said(answer) == undisturbed
        else:  # What was one token at a time is now computed together: likely the same, and not surely.
            assert said(answer)["text"].startswith(before)
            assert answer[-1]["done"] and not said(answer)["errors"]


def test_all_that_is_under_way_goes_on_when_the_worker_is_killed(daemon: Daemon) -> None:
    assert_answers(daemon)
    began = threading.Event()

    def kill() -> None:
        assert began.wait(TIMEOUT)
        daemon.wait_for_worker().send_signal(signal.SIGKILL)

    killing = threading.Thread(target=kill)
    killing.start()
    plain, scored, called, deterministic, embedded = map(said, ask_all(daemon, began))
    killing.join(TIMEOUT)
    assert not any(answer["errors"] for answer in (plain, scored, called, deterministic, embedded))
    assert scored["text"] == "".join(scored["tokens"]) and scored["counts"][2] == len(scored["tokens"])
    [call] = called["calls"]
    assert call["name"] == "get_weather" and isinstance(call["arguments"], dict)
    assert embedded["vectors"] == [576, 576]
    daemon.wait_until_restarted(1)
    path, body = STREAMS[3]
    again = daemon.client.post(path, json={"model": MODEL, **body}).json()
    assert deterministic["text"] == again["response"], "to the bit"


def test_a_request_that_is_there_when_the_worker_dies_twice_ends_with_an_error(daemon: Daemon) -> None:
    with daemon.client.stream("POST", "/api/generate", json=ENDLESS) as response:
        stream = records(response)
        next(stream)
        for _ in range(2):
            worker = daemon.wait_for_worker()
            daemon.wait_until_busy()
            worker.send_signal(signal.SIGKILL)
            psutil.wait_procs([worker], TIMEOUT)
        last = list(stream)[-1]
    assert last["code"] == "engine_crashed"
    assert last["request_id"]
    assert "done" not in last
    refused = daemon.client.post("/api/generate", json=ENDLESS | {"stream": False})
    assert refused.status_code == 500
    assert refused.json()["code"] == "engine_crashed"
    assert_answers(daemon)
    assert daemon.loaded()[0]["restarts"] == 2


def create_tiny(daemon: Daemon) -> None:
    content = write_tiny_model(daemon.home / "tiny.gguf").read_bytes()
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert daemon.client.post(f"/api/blobs/{digest}", content=content).status_code == 201
    body = {"model": "tiny", "files": {"tiny.gguf": digest}, "stream": False}
    assert daemon.client.post("/api/create", json=body).json() == {"status": "success"}


def test_one_models_death_is_not_noticed_by_another(daemon: Daemon) -> None:
    create_tiny(daemon)
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
