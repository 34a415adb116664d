"""`puna run` with a prompt: one answer, and what is told beside it."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator

import pytest

from tests.cli.conftest import PUNA, Puna
from tests.cli.fake_daemon import SUCCESS, TIMEOUT, FakeDaemon, Json, Reply, answer, refusal


def test_run_writes_the_answer_and_nothing_else(puna: Puna, daemon: FakeDaemon) -> None:
    daemon.routes["POST /api/generate"] = lambda _: answer("Hel", "lo 🦙")
    done = puna("run", "smol", "Say", "hello", "--system", "Be kind.", "--keepalive", "10m", "-o", "temperature=0",
                "-o", "stop=a b", "-o", "stop=c", "-o", "seed=7", "-o", "use_mmap=false")  # fmt: skip
    assert (done.stdout, done.stderr) == ("Hello 🦙\n", "")
    assert daemon.asked("POST /api/generate") == [
        {
            "model": "smol",
            "prompt": "Say hello",
            "system": "Be kind.",
            "keep_alive": "10m",
            "options": {"temperature": 0.0, "stop": ["a b", "c"], "seed": 7, "use_mmap": False},
        }
    ]


def test_piped_text_comes_before_the_prompt(puna: Puna, daemon: FakeDaemon) -> None:
    daemon.routes["POST /api/generate"] = lambda _: answer("ok")
    puna("run", "smol", "Summarize.", stdin="\ufeffA long text: ünï\n")
    puna("run", "smol", stdin="only piped\n")
    assert [body["prompt"] for body in daemon.asked("POST /api/generate")] == [
        "A long text: ünï Summarize.",
        "only piped",
    ]


def test_run_without_anything_to_answer_is_wrong_usage(puna: Puna) -> None:
    assert "nothing to answer" in puna("run", "smol", code=2).stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-o", "temperature"), "temperature=0.2"), (("-o", "temperature=hot"), "temperature must be a number"),
        (("-o", "nonsense=1"), "unknown parameter 'nonsense'.\n"),
        (("-o", "temprature=1"), "Did you mean temperature?"), (("-o", "tfs_z=1"), "no longer"),
        (("--keepalive", "10"), "unit"),
    ],
)  # fmt: skip
def test_a_bad_option_is_told_before_anything_is_asked(
    puna: Puna, daemon: FakeDaemon, arguments: tuple[str, ...], said: str
) -> None:
    assert said in puna("run", "smol", "hi", *arguments, code=2).stderr
    assert daemon.requests == []


def test_a_missing_model_is_fetched_first(puna: Puna, daemon: FakeDaemon) -> None:
    here = threading.Event()

    def pulled(_: object) -> list[Json]:
        here.set()
        return SUCCESS

    daemon.routes["POST /api/pull"] = pulled
    daemon.routes["POST /api/generate"] = lambda _: (
        answer("hi") if here.is_set() else refusal(404, "model_not_found", "model 'smol' not found")
    )
    done = puna("run", "smol", "hello")
    assert done.stdout == "hi\n"
    assert "success" in done.stderr


def test_verbose_tells_counts_and_rates(puna: Puna, daemon: FakeDaemon) -> None:
    daemon.routes["POST /api/generate"] = lambda _: answer(
        "hi", total_duration=2_000_000_000, load_duration=50_000_000, prompt_eval_count=30,
        prompt_eval_duration=100_000_000, eval_count=50, eval_duration=1_000_000_000, cached_tokens=10,
    )  # fmt: skip
    done = puna("run", "smol", "x", "--verbose")
    assert done.stderr.splitlines() == [
        "total duration:       2.000s",
        "load duration:        50.0ms",
        "prompt eval count:    30 token(s) (10 cached)",
        "prompt eval duration: 100.0ms",
        "prompt eval rate:     200.00 tokens/s",
        "eval count:           50 token(s)",
        "eval duration:        1.000s",
        "eval rate:            50.00 tokens/s",
    ]


def test_a_shortened_prompt_and_ignored_fields_are_told(puna: Puna, daemon: FakeDaemon) -> None:
    records = answer("hi", truncated={"from": 900, "to": 500, "strategy": "shift"})
    daemon.routes["POST /api/generate"] = lambda _: Reply(records, headers={"X-Puna-Ignored": "options.main_gpu"})
    done = puna("run", "smol", "x")
    assert "from 900 to 500 tokens" in done.stderr
    assert "options.main_gpu" in done.stderr


def test_an_answer_that_breaks_off_says_so(puna: Puna, daemon: FakeDaemon) -> None:
    daemon.routes["POST /api/generate"] = lambda _: Reply(answer("par")[:1], cut=True)
    done = puna("run", "smol", "x", code=69)
    assert done.stdout == "par\n"
    assert "broke off" in done.stderr
    daemon.routes["POST /api/generate"] = lambda _: answer("par")[:1]
    puna("run", "smol", "x", code=69)
    crashed = {"error": "The engine died.", "code": "engine_crashed", "request_id": "r"}
    daemon.routes["POST /api/generate"] = lambda _: [*answer("par")[:1], crashed]
    assert "The engine died." in puna("run", "smol", "x", code=70).stderr


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_ctrl_c_stops_the_answer_with_130(daemon: FakeDaemon, environment: dict[str, str]) -> None:
    started = threading.Event()

    def slow(_: object) -> Iterator[Json]:
        yield {"response": "first"}
        started.set()
        while not daemon.disconnected.wait(0.005):
            yield {"response": "x" * 2000}

    daemon.routes["POST /api/generate"] = slow
    with subprocess.Popen(
        [*PUNA, "run", "smol", "go"], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            assert process.stdout.read(5) == b"first"
            process.send_signal(signal.SIGINT)
            _, error = process.communicate(timeout=TIMEOUT)
        finally:
            process.kill()
    assert (process.returncode, error) == (130, b"")
    assert daemon.disconnected.wait(TIMEOUT)
