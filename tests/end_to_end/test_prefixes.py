"""What is shared, kept and brought back, with real models: the same numbers, and less work."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import llama_cpp
import numpy as np
import pytest

from registry.name import ModelName
from registry.store import ModelStore
from runner.engine import Chunk, SamplerPlan
from runner.llamacpp.engine import LlamaEngine
from runner.llamacpp.library import Library
from runner.loaded_model import LoadOptions
from runner.sampling import SamplingParams
from tests.end_to_end.conftest import MODEL, SLIDING_MODEL, TIMEOUT, Daemon, running_daemon
from tests.end_to_end.test_streams import LIKELIEST, TOLERANCE, Said, log_probabilities

STORY = "The keeper climbed the stairs every evening, counted the ships, and wrote down the wind."
SYSTEM = "You answer questions about this text. " + " ".join(f"Day {day}. {STORY}" for day in range(10))
QUESTIONS = ["What did the keeper count?", "When did he climb the stairs?", "What did he write down?", "Who counted?"]


@pytest.fixture(scope="module")
def engine(smollm2_store: Path) -> Iterator[LlamaEngine]:
    path = ModelStore(smollm2_store).find(ModelName.parse(MODEL)).model_path
    engine = LlamaEngine(Library(), path, LoadOptions(context_length=2048, max_sequences=4, num_thread=1))
    yield engine
    engine.close()


def logits_after(engine: LlamaEngine, sequence_id: int, place: int, token: int) -> np.ndarray[Any, Any]:
    """The logits of one more token at `place`, which is taken back afterwards."""
    sampler = engine.create_sampler(SamplerPlan(SamplingParams(temperature=0), 1), [])
    engine.step([Chunk(sequence_id, place, [token], sampler)])
    pointer = llama_cpp.llama_get_logits_ith(engine._model.context, 0)
    row = np.ctypeslib.as_array(pointer, shape=(engine.info.vocabulary,)).copy()
    engine.cut(sequence_id, place)
    sampler.close()
    return row


def test_what_was_saved_in_ranges_comes_back_to_the_bit(engine: LlamaEngine) -> None:
    tokens = engine.tokenize(SYSTEM, add_special=True, parse_special=True)[:180]
    engine.step([Chunk(0, 0, tokens[:-1])])
    plain = logits_after(engine, 0, 179, tokens[-1])
    ranges = [(start, min(start + 100, 179)) for start in range(0, 179, 100)]
    states = [engine.save(0, start, end) for start, end in ranges]
    engine.remove(0)
    for (start, end), state in zip(ranges, states, strict=True):
        assert engine.restore(1, state, start, end)
    assert np.array_equal(logits_after(engine, 1, 179, tokens[-1]), plain)

    # A part of a range, and the rest computed anew.
    engine.remove(1)
    assert engine.restore(1, states[0], 0, 60)
    engine.step([Chunk(1, 60, tokens[60:-1])])
    again = log_probabilities(logits_after(engine, 1, 179, tokens[-1]))
    likeliest = np.argsort(-plain)[:LIKELIEST]
    assert np.abs(again - log_probabilities(plain))[likeliest].max() < TOLERANCE
    engine.remove(1)


def test_a_shared_prefix_gives_the_numbers_of_one_computed_alone(engine: LlamaEngine) -> None:
    tokens = engine.tokenize(SYSTEM, add_special=True, parse_special=True)[:150]
    rest = engine.tokenize(" What did the keeper count?", add_special=False, parse_special=False)
    engine.step([Chunk(0, 0, tokens)])
    engine.step([Chunk(0, 150, rest[:-1])])
    plain = logits_after(engine, 0, 149 + len(rest), rest[-1])
    engine.remove(0)
    engine.step([Chunk(0, 0, tokens)])
    for sequence_id in (1, 2):
        engine.copy(0, sequence_id, 150)
        engine.step([Chunk(sequence_id, 150, rest[:-1])])
    engine.remove(0)
    for sequence_id in (1, 2):
        shared = logits_after(engine, sequence_id, 149 + len(rest), rest[-1])
        likeliest = np.argsort(-plain)[:LIKELIEST]
        difference = np.abs(log_probabilities(shared) - log_probabilities(plain))[likeliest].max()
        assert difference < TOLERANCE, difference
        engine.remove(sequence_id)


def test_a_state_that_was_tampered_with_is_refused(engine: LlamaEngine) -> None:
    engine.step([Chunk(0, 0, list(range(100, 150)))])
    state = bytes(engine.save(0, 0, 50))
    engine.remove(0)
    for broken in (state[:1000], state[:-1], b"x" * 500, b""):
        assert not engine.restore(1, memoryview(broken), 0, 50)
    assert engine.restore(1, memoryview(state), 0, 50)
    engine.remove(1)


async def ask(
    client: httpx.AsyncClient, messages: list[dict[str, str]], model: str = MODEL, **options: object
) -> dict[str, Any]:
    body = {
        "model": model,
        "messages": messages,
        "stream": False,
        "options": {"temperature": 0, "num_predict": 16, **options},
    }
    response = await client.post("/api/chat", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def conversation(question: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]


async def test_requests_with_one_system_text_compute_it_once(daemon: Daemon) -> None:
    async with httpx.AsyncClient(base_url=daemon.url, timeout=TIMEOUT) as client:
        answers = await asyncio.gather(*(ask(client, conversation(question)) for question in QUESTIONS))
    cached = sorted(answer.get("cached_tokens", 0) for answer in answers)
    shortest = min(answer["prompt_eval_count"] for answer in answers)
    assert cached[0] == 0
    assert all(count > shortest - 40 for count in cached[1:]), cached
    [loaded] = daemon.loaded()
    assert loaded["cache"]["live"] + loaded["cache"]["memory"] == sum(cached)


@pytest.mark.parametrize("model", [MODEL, SLIDING_MODEL])
def test_a_text_goes_on_after_the_daemon_was_started_again(
    model: str, smollm2_store: Path, sliding_store: Path, tmp_path: Path
) -> None:
    store = smollm2_store if model == MODEL else sliding_store

    def go_on(daemon: Daemon, text: str) -> dict[str, Any]:
        body = {
            "model": model, "prompt": text, "raw": True, "stream": False, "logprobs": True, "top_logprobs": LIKELIEST,
            "options": {"temperature": 0, "num_predict": 8},
        }  # fmt: skip
        response = daemon.client.post("/api/generate", json=body)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    with running_daemon(tmp_path, store) as daemon:
        first = go_on(daemon, SYSTEM)
        longer = f"{SYSTEM}{first['response']} Question: {QUESTIONS[1]} Answer:"
        warm = go_on(daemon, longer)
    assert warm["cached_tokens"] >= first["prompt_eval_count"] - 1
    with running_daemon(tmp_path, store) as daemon:
        resumed = go_on(daemon, longer)
    assert resumed["cache"]["disk"] >= warm["cached_tokens"]
    before, behind = (Said(one["response"], one["logprobs"], one["prompt_eval_count"]) for one in (warm, resumed))
    assert before.may_begin(behind), (before.text, behind.text)
    assert before.prompt_tokens == behind.prompt_tokens


async def test_a_deterministic_answer_is_the_same_whatever_else_runs(shared_daemon: Daemon) -> None:
    short = [{"role": "user", "content": QUESTIONS[0]}]
    wanted: list[Any] = [
        {"temperature": temperature, "seed": seed, "deterministic": True, "num_predict": 8}
        for temperature, seed in ((0, 1), (0.8, 7), (1.5, 12345))
    ]
    async with httpx.AsyncClient(base_url=shared_daemon.url, timeout=TIMEOUT) as client:
        alone = [await ask(client, short, **options) for options in wanted]
        together = await asyncio.gather(
            *(ask(client, short, **options) for options in wanted),
            *(ask(client, [{"role": "user", "content": question}]) for question in 2 * QUESTIONS),
        )
    for first, second in zip(alone, together[: len(wanted)], strict=True):
        assert first["message"] == second["message"]
        assert first["eval_count"] == second["eval_count"]
    assert len({answer["message"]["content"] for answer in alone}) > 1


async def test_a_priority_that_is_none_is_refused(shared_daemon: Daemon) -> None:
    async with httpx.AsyncClient(base_url=shared_daemon.url, timeout=TIMEOUT) as client:
        body = {"model": MODEL, "prompt": "Hi", "stream": False, "options": {"num_predict": 1}}
        refused = await client.post("/api/generate", json=body, headers={"X-Puna-Priority": "highest"})
        taken = await client.post("/api/generate", json=body, headers={"X-Puna-Priority": "background"})
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request")
    assert taken.status_code == 200
