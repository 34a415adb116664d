"""Windows that grow under running streams, with real models: the same numbers, and no stream is lost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import llama_cpp
import numpy as np
import pytest

from registry.name import ModelName
from registry.store import ModelStore
from runner.engine import Chunk, Move, SamplerPlan
from runner.llamacpp.engine import LlamaEngine
from runner.llamacpp.library import Library
from runner.loaded_model import LoadOptions
from runner.sampling import SamplingParams
from tests.end_to_end.conftest import MODEL, SLIDING_MODEL, TIMEOUT, Daemon, running_daemon
from tests.end_to_end.test_prefixes import STORY, SYSTEM
from tests.end_to_end.test_streams import LIKELIEST, TOLERANCE, Said, log_probabilities

SHARED = 90
QUESTIONS = [" What did the keeper count?", " When did he climb the stairs?", " What was written down, and by whom?"]


@pytest.fixture(params=[MODEL, SLIDING_MODEL])
def engine(request: pytest.FixtureRequest, smollm2_store: Path, sliding_store: Path) -> Iterator[LlamaEngine]:
    store = smollm2_store if request.param == MODEL else sliding_store
    path = ModelStore(store).find(ModelName.parse(request.param)).model_path
    engine = LlamaEngine(Library(), path, LoadOptions(512, max_sequences=4, longest_context=2048, num_thread=1))
    yield engine
    engine.close()


def continued(engine: LlamaEngine, *, grows: bool) -> list[tuple[int, np.ndarray[Any, Any]]]:
    """Three sequences, of which two share a prefix where that is possible; what follows, by all of them at once."""
    shares = engine.info.memory == "cells"
    system = engine.tokenize(SYSTEM, add_special=True, parse_special=True)[:SHARED]
    prompts = [
        system + engine.tokenize(question, add_special=False, parse_special=False) * (number + 1)
        for number, question in enumerate(QUESTIONS)
    ]
    for number, prompt in enumerate(prompts):
        if shares and number == 1:
            engine.copy(0, 1, SHARED)
            engine.step([Chunk(1, SHARED, prompt[SHARED:-1])])
        else:
            engine.step([Chunk(number, 0, prompt[:-1])])
    if grows:
        moves = [Move(number, len(prompt) - 1) for number, prompt in enumerate(prompts)]
        if shares:
            moves[1] = Move(1, len(prompts[1]) - 1, 0, SHARED)
        assert engine.move_into(engine.make_window(1024), moves)
        assert engine.info.context_length == 1024
    sampler = engine.create_sampler(SamplerPlan(SamplingParams(temperature=0), 1), [])
    tokens = engine.step(
        [Chunk(number, len(prompt) - 1, prompt[-1:], sampler) for number, prompt in enumerate(prompts)]
    )
    rows = []
    for number in range(len(prompts)):
        pointer = llama_cpp.llama_get_logits_ith(engine._model.context, number)
        rows.append(np.ctypeslib.as_array(pointer, shape=(engine.info.vocabulary,)).copy())
    sampler.close()
    for number in range(len(prompts)):
        engine.remove(number)
    return list(zip(tokens, rows, strict=True))


def test_sequences_that_moved_give_the_numbers_of_those_that_did_not(engine: LlamaEngine) -> None:
    size = engine.info.size
    plain = continued(engine, grows=False)
    moved = continued(engine, grows=True)
    assert engine.info.size > size
    for (_, expected), (_, found) in zip(plain, moved, strict=True):
        likeliest = np.argsort(-expected)[:LIKELIEST]
        difference = np.abs(log_probabilities(found) - log_probabilities(expected))[likeliest].max()
        assert difference < TOLERANCE, difference
    # What was computed before the window grew fits into it, and so does what comes after.
    again = continued(engine, grows=False)
    assert [token for token, _ in again] == [token for token, _ in moved]


def test_a_state_saved_in_a_small_window_fits_into_the_large_one(engine: LlamaEngine) -> None:
    tokens = engine.tokenize(SYSTEM, add_special=True, parse_special=True)[:120]
    engine.step([Chunk(0, 0, tokens)])
    state = engine.save(0, 0, 120)
    assert engine.move_into(engine.make_window(2048), [Move(0, 120)])
    engine.remove(0)
    assert engine.restore(1, state, 0, 120)
    engine.remove(1)


async def stream(client: httpx.AsyncClient, prompt: str, count: int) -> Said:
    body = {
        "model": MODEL, "prompt": prompt, "raw": True, "logprobs": True, "top_logprobs": LIKELIEST,
        "options": {"temperature": 0, "num_predict": count},
    }  # fmt: skip
    text = ""
    tokens: list[dict[str, Any]] = []
    async with client.stream("POST", "/api/generate", json=body) as response:
        assert response.status_code == 200, await response.aread()
        async for line in response.aiter_lines():
            record: dict[str, Any] = json.loads(line)
            assert "error" not in record, record
            text += record["response"]
            tokens += record.get("logprobs") or []
    assert record["done"]
    return Said(text, tokens, record["prompt_eval_count"])


async def test_streams_run_on_while_the_window_grows_for_a_long_prompt(smollm2_store: Path, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[worker]\nmax_sequences = 4\n")
    # None of them can be at an end already.
    prompts = [f"{STORY}{question} Every evening, he" for question in QUESTIONS]
    long = " ".join(f"Line {line}." for line in range(90))
    with running_daemon(tmp_path, smollm2_store) as daemon:
        first = {"model": MODEL, "prompt": "Hi", "stream": False, "options": {"num_ctx": 256, "num_predict": 1}}
        assert daemon.client.post("/api/generate", json=first).status_code == 200
        [loaded] = daemon.loaded()
        assert (loaded["context_length"], loaded["grown"]["count"]) == (256, 0)
        assert loaded["largest_context_length"] == 8192
        async with httpx.AsyncClient(base_url=daemon.url, timeout=TIMEOUT) as client:
            *answers, _ = await asyncio.gather(
                *(stream(client, prompt, 24) for prompt in prompts), stream(client, long, 2)
            )
            [loaded] = daemon.loaded()
            alone = [await stream(client, prompt, 24) for prompt in prompts]
    assert loaded["context_length"] >= 512
    assert loaded["grown"]["count"] >= 1
    assert (loaded["last_reload_reason"], loaded["restarts"]) == (None, 0)
    for one, beside in zip(alone, answers, strict=True):
        assert one.may_begin(beside), (one.text, beside.text)
        assert one.prompt_tokens == beside.prompt_tokens


def test_a_conversation_that_outgrows_its_window_goes_on_from_what_is_kept(smollm2_store: Path, tmp_path: Path) -> None:
    def go_on(daemon: Daemon, text: str, **options: object) -> dict[str, Any]:
        body = {
            "model": MODEL, "prompt": text, "raw": True, "stream": False,
            "options": {"temperature": 0, "num_predict": 4, **options},
        }  # fmt: skip
        response = daemon.client.post("/api/generate", json=body)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    with running_daemon(tmp_path, smollm2_store) as daemon:
        before = go_on(daemon, SYSTEM, num_ctx=256)
        longer = go_on(daemon, f"{SYSTEM}{before['response']} {SYSTEM}")
        [loaded] = daemon.loaded()
    assert before["prompt_eval_count"] < 256 < longer["prompt_eval_count"]
    assert longer["cached_tokens"] >= before["prompt_eval_count"] - 1
    assert (loaded["context_length"], loaded["grown"]["count"]) == (512, 1)
