"""The soak: its requests, what it makes of answers, and that it runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.scripts.conftest import script, script_environment
from tests.tiny_model import write_tiny_model

START = "import sys; from soaking.program import main; sys.exit(main())"
TIMEOUT = 250
DONE = {"done": True}


def chunk(text: str, reason: str | None = None, index: int = 0) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": {"content": text}, "finish_reason": reason}]}


def test_mixed_requests_all_end_as_they_should(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "tiny.gguf", context_length=32768)
    done = subprocess.run(
        [sys.executable, "-c", START, "--model", str(model), "--embedder", str(model), "--count", "60"],
        env=script_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "60 requests of 12 clients" in done.stdout and "sound" in done.stdout
    assert "left in the queue: 0; restarts: 0; errors in the log: 0" in done.stdout


def test_a_seed_always_gives_the_same_requests() -> None:
    make = script("soaking.requests").make_requests
    first, again, other = (make(seed, 300, "m", "e") for seed in (1, 1, 2))
    plain = [[(one.kind, one.path, one.body, one.leaves_after) for one in made] for made in (first, again, other)]
    assert plain[0] == plain[1] != plain[2]
    assert {one.kind.split(" the ")[0].split(" a ")[0] for one in first} >= {"cancelled", "schema", "embed", "tools"}


def test_without_an_embedder_no_vectors_are_asked_for() -> None:
    made = script("soaking.requests").make_requests(1, 500, "m", None)
    assert not any("embed" in one.path for one in made) and len(made) == 500


@pytest.mark.parametrize(
    ("kind", "records"),
    [
        ("openai", [chunk("x"), DONE]),
        ("openai", [chunk("x"), chunk("", "stop")]),
        ("openai", [chunk("x", "stop"), chunk("y", index=1), DONE]),
        ("ollama chat", [{"message": {}, "done": False}]),
        ("ollama chat", [DONE]),
        ("anthropic", [{"type": "message_start"}, {"type": "content_block_start"}]),
        ("schema", [chunk("{", None), chunk("", "stop"), DONE]),
        ("schema", [chunk('{"name": "x", "age": "y", "kind": "a"}', "stop"), DONE]),
    ],
)
def test_an_answer_that_is_cut_or_wrong_is_noticed(kind: str, records: list[Any]) -> None:
    requests = script("soaking.requests")
    [request] = [one for one in requests.make_requests(1, 300, "m", None) if one.kind == kind][:1]
    with pytest.raises(requests.Wrong):
        request.check(records)


def test_an_answer_that_ran_out_of_length_need_not_fit_its_schema() -> None:
    requests = script("soaking.requests")
    [request] = [one for one in requests.make_requests(1, 300, "m", None) if one.kind == "schema"][:1]
    request.check([chunk('{"na', None), chunk("", "length"), DONE])


def test_growth_is_told_of_the_second_half() -> None:
    growth = script("soaking.memory").growth
    filling = [(ended, 10.0 * min(ended, 40)) for ended in range(0, 101, 5)]
    assert growth(filling) == pytest.approx(0.0, abs=1e-6)
    assert growth([(ended, 3.0 + 0.02 * ended) for ended in range(0, 101, 5)]) == pytest.approx(20.0)
    assert growth([]) is None and growth([(0, 1.0), (5, 1.0)]) is None


def test_lost_requests_and_texts_that_differ_are_faults() -> None:
    program = script("soaking.program")
    verdict = program.Verdict()
    verdict.tally.ended["openai"] = 9
    verdict.tally.same["deterministic"] = {"one", "two"}
    assert len(verdict.faults(10)) == 2
    verdict.tally.ended["openai"] = 10
    verdict.tally.same.clear()
    assert verdict.faults(10) == []
