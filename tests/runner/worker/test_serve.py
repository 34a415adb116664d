"""A real worker process with a real, tiny model, spoken to over its pipe."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.chat.types import ChatEvent, ChatPrompt, ChatRequest, Failed, Finished, Limits, Message, Started, TextDelta
from runner.loaded_model import LoadOptions
from runner.messages import (
    FRAME_HEADER,
    Cancel,
    Command,
    Events,
    Generate,
    Load,
    Loaded,
    LoadFailed,
    LoadProgress,
    Report,
    Stats,
    decode_report,
    encode_frame,
)
from runner.sampling import SamplingParams
from tests.runner.worker.test_loop import is_empty
from tests.tiny_model import END, write_tiny_model

TIMEOUT = 60
OPTIONS = LoadOptions(context_length=512, max_sequences=4, num_batch=64)
WORKER = [sys.executable, "-P", "-m", "runner.worker"]


class Worker:
    def __init__(self, model: Path) -> None:
        self.process = subprocess.Popen(WORKER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.send(Load(str(model), OPTIONS))

    def send(self, command: Command) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(encode_frame(command))
        self.process.stdin.flush()

    def receive(self) -> Report:
        assert self.process.stdout is not None
        (length,) = FRAME_HEADER.unpack(self.process.stdout.read(FRAME_HEADER.size))
        return decode_report(self.process.stdout.read(length))

    def wait_until_loaded(self) -> Loaded | LoadFailed:
        while not isinstance(report := self.receive(), Loaded | LoadFailed):
            assert isinstance(report, LoadProgress)
        return report

    def generate(self, name: str, *, count: int, content: str = "hello") -> None:
        request = ChatRequest(
            ChatPrompt((Message("user", content),)), SamplingParams(temperature=0), Limits(num_predict=count)
        )
        self.send(Generate(name, request))

    def generate_endlessly(self, name: str) -> None:
        request = ChatRequest(
            ChatPrompt((Message("user", "hello"),)),
            SamplingParams(temperature=0),
            Limits(num_predict=1 << 30, shift=True),
            logit_bias=((END, -100.0),),
        )
        self.send(Generate(name, request))

    def events(self) -> Iterator[tuple[str, ChatEvent]]:
        while True:
            report = self.receive()
            if isinstance(report, Events):
                yield from report.events

    def end(self) -> int:
        """Close its input, as the daemon's death does, and wait for it to end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(TIMEOUT)

    def dispose(self) -> None:
        self.process.kill()
        self.process.wait(TIMEOUT)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    worker = Worker(write_tiny_model(tmp_path / "tiny.gguf"))
    yield worker
    worker.dispose()


def test_a_worker_loads_answers_and_ends_with_its_pipe(worker: Worker) -> None:
    loaded = worker.wait_until_loaded()
    assert isinstance(loaded, Loaded)
    assert loaded.model.context_length == 512
    worker.generate("a", count=5)
    text = ""
    for name, event in worker.events():
        assert name == "a"
        if isinstance(event, TextDelta):
            text += event.text
        if not isinstance(event, Started | TextDelta):
            break
    assert isinstance(event, Finished)
    assert event.usage.completion_tokens <= 5
    assert event.usage.prompt_ns > 0
    assert worker.end() == 0


def test_a_cancelled_answer_stops_and_the_others_go_on(worker: Worker) -> None:
    worker.wait_until_loaded()
    worker.generate_endlessly("endless")
    events = worker.events()
    assert next(events)[0] == "endless"
    worker.send(Cancel("endless"))
    worker.generate("next", count=3)
    ended = {name for name, event in _until(events, "next") if isinstance(event, Finished | Failed)}
    assert ended == {"next"}
    while not (isinstance(report := worker.receive(), Stats) and is_empty(report)):
        pass


def _until(events: Iterator[tuple[str, ChatEvent]], name: str) -> Iterator[tuple[str, ChatEvent]]:
    for item in events:
        yield item
        if item[0] == name and isinstance(item[1], Finished | Failed):
            return


def test_a_prompt_that_is_too_long_fails_alone(worker: Worker) -> None:
    worker.wait_until_loaded()
    worker.generate("long", count=3, content="x" * 2000)
    worker.generate("short", count=3)
    ended: dict[str, ChatEvent] = {}
    for name, event in worker.events():
        if isinstance(event, Finished | Failed):
            ended[name] = event
        if len(ended) == 2:
            break
    failed = ended["long"]
    assert isinstance(failed, Failed)
    assert failed.code == "context_length_exceeded"
    assert isinstance(ended["short"], Finished)


def test_a_worker_whose_daemon_dies_in_mid_answer_ends_at_once(worker: Worker) -> None:
    worker.wait_until_loaded()
    worker.generate_endlessly("endless")
    next(worker.events())
    assert worker.end() == 0


def test_a_file_that_is_no_model_is_told_and_the_worker_ends(tmp_path: Path) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF but not really")
    worker = Worker(path)
    failed = worker.wait_until_loaded()
    assert isinstance(failed, LoadFailed)
    assert failed.code == "model_invalid"
    assert worker.process.wait(TIMEOUT) == 1
    worker.dispose()


@pytest.mark.parametrize("garbage", [b"\xff\xff\xff\xff", b"\x03\x00\x00\x00abc", b"\x01\x00"])
def test_garbage_on_the_pipe_ends_the_worker(garbage: bytes) -> None:
    done = subprocess.run(WORKER, input=garbage, capture_output=True, timeout=TIMEOUT, check=False)
    assert done.stdout == b""
    assert done.returncode in (0, 70)


def test_devices_are_listed_as_json() -> None:
    done = subprocess.run([*WORKER, "--devices"], capture_output=True, timeout=TIMEOUT, check=True)
    assert "cpu" in {device["kind"] for device in json.loads(done.stdout)}
