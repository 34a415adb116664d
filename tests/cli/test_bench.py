"""`puna bench`, as a user types it."""

from __future__ import annotations

import json

from tests.cli.conftest import Puna
from tests.cli.fake_daemon import FakeDaemon, Json, refusal

FOUND: Json = {
    "status": "measured",
    "model": "smol:latest",
    "type": "Q4_1",
    "engine": "llama.cpp",
    "placement": "CPU: the engine has no GPU to use.",
    "load_seconds": 0.25,
    "speeds": [
        {"threads": 1, "prefill": 212.8, "decode": 115.94},
        {"threads": 2, "prefill": 377.6, "decode": 108.1},
    ],
    "best_threads": {"prefill": 2, "decode": 1},
    "fast_kernel": False,
    "kernel": "Q4_1 has no fast kernel on this CPU.",
    "fast_types": ["Q4_0", "Q4_K_M"],
    "also_loaded": [],
}
PROGRESS: Json = {"status": "measuring", "total": 100, "completed": 50}
DONE: Json = {"status": "success"}


def test_the_speeds_are_a_table_with_the_best_marked(puna: Puna, daemon: FakeDaemon) -> None:
    daemon.routes["POST /api/bench"] = lambda _: [PROGRESS, FOUND, DONE]
    shown = puna("bench", "smol")
    assert daemon.requests[-1] == ("POST /api/bench", {"model": "smol"})
    assert [" ".join(line.split()) for line in shown.stdout.splitlines()] == [
        "smol:latest (Q4_1), loaded in 0.2 s",
        "CPU: the engine has no GPU to use.",
        "",
        "THREADS READS WRITES",
        "1 212.8 115.9 *",
        "2 377.6 * 108.1",
        "",
        "Tokens a second.",
        "It reads fastest with 2 threads, and writes fastest with 1 thread.",
        "Q4_1 has no fast kernel on this CPU.",
        "Fast on this CPU: Q4_0, Q4_K_M.",
    ]
    assert "50 %" in shown.stderr


def test_json_is_what_the_daemon_found(puna: Puna, daemon: FakeDaemon) -> None:
    daemon.routes["POST /api/bench"] = lambda _: [PROGRESS, FOUND, DONE]
    told = json.loads(puna("bench", "smol", "--json").stdout)
    assert told == {key: value for key, value in FOUND.items() if key != "status"}


def test_models_that_may_disturb_are_named(puna: Puna, daemon: FakeDaemon) -> None:
    daemon.routes["POST /api/bench"] = lambda _: [{**FOUND, "also_loaded": ["big:1"]}, DONE]
    assert "big:1 is loaded as well" in puna("bench", "smol").stderr


def test_a_model_that_is_not_there_is_told(puna: Puna, daemon: FakeDaemon) -> None:
    daemon.routes["POST /api/bench"] = lambda _: refusal(404, "model_not_found", 'model "no" not found')
    puna("bench", "no", code=66)


def test_a_measurement_that_breaks_off_is_a_failure(puna: Puna, daemon: FakeDaemon) -> None:
    daemon.routes["POST /api/bench"] = lambda _: [PROGRESS]
    puna("bench", "smol", code=69)
