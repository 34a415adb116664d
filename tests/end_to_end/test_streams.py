"""Many streams through one loaded model."""

from __future__ import annotations

import asyncio
import difflib
import json
from pathlib import Path
from typing import Any

import httpx
import llama_cpp
import numpy as np

from registry.name import ModelName
from registry.store import ModelStore
from runner.engine import Chunk, LoadOptions
from runner.llamacpp.engine import LlamaEngine
from runner.llamacpp.library import Library
from runner.sampling import SamplingParams
from tests.end_to_end.conftest import MODEL, TIMEOUT, Daemon

QUESTIONS = [
    "Why is the sky blue?",
    "Name three colours.",
    "What is a lighthouse for?",
    "How do bees make honey?",
    "What is the capital of France?",
    "Write one sentence about the sea.",
    "What do llamas eat?",
    "How many days are in a week?",
]
TOLERANCE = 1.0
"""How far a logit of SmolLM2-135M Q4_1 (they lie between about -10 and 30) may move when other sequences hold
cells of the same cache: llama.cpp adds in another order then, and quantized weights make the difference grow."""


async def ask(client: httpx.AsyncClient, question: str) -> str:
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": question}],
        "options": {"temperature": 0, "num_predict": 32},
    }
    text = ""
    async with client.stream("POST", "/api/chat", json=body) as response:
        assert response.status_code == 200, await response.aread()
        async for line in response.aiter_lines():
            record: dict[str, Any] = json.loads(line)
            assert "error" not in record, record
            text += record["message"]["content"]
    assert record["done"]
    return text


async def test_eight_streams_at_once_are_answered_as_each_is_alone(shared_daemon: Daemon) -> None:
    async with httpx.AsyncClient(base_url=shared_daemon.url, timeout=TIMEOUT) as client:
        alone = [await ask(client, question) for question in QUESTIONS]
        together = await asyncio.gather(*(ask(client, question) for question in QUESTIONS))
    for question, one, many in zip(QUESTIONS, alone, together, strict=True):
        # A near tie may be decided otherwise, and the texts part from there; until then they are one.
        same = difflib.SequenceMatcher(None, one, many, autojunk=False).find_longest_match().size
        assert same >= 10, (question, one, many)
    equal = sum(one == many for one, many in zip(alone, together, strict=True))
    assert equal >= 4, "greedy texts are equal but for near ties"


def test_logits_in_a_batch_of_eight_are_those_of_the_prompt_alone(smollm2_store: Path) -> None:
    path = ModelStore(smollm2_store).find(ModelName.parse(MODEL)).model_path
    engine = LlamaEngine(Library(), path, LoadOptions(context_length=2048, max_sequences=8))
    greedy = SamplingParams(temperature=0)
    prompts = [engine.tokenize(question, add_special=True, parse_special=False) for question in QUESTIONS]

    def logits(row: int) -> np.ndarray[Any, Any]:
        pointer = llama_cpp.llama_get_logits_ith(engine._model.context, row)
        return np.ctypeslib.as_array(pointer, shape=(engine.info.vocabulary,)).copy()

    alone = []
    for prompt in prompts:
        engine.step([Chunk(0, 0, prompt, engine.create_sampler(greedy, 1, prompt))])
        alone.append(logits(len(prompt) - 1))
        engine.remove(0)
    engine.step([Chunk(n, 0, prompt, engine.create_sampler(greedy, 1, prompt)) for n, prompt in enumerate(prompts)])
    row, differences = -1, []
    for prompt, expected in zip(prompts, alone, strict=True):
        row += len(prompt)
        found = logits(row)
        differences.append(float(np.abs(found - expected).max()))
        assert float(np.corrcoef(found, expected)[0, 1]) > 0.999
    assert max(differences) < TOLERANCE, differences
    engine.close()


async def test_more_streams_than_sequences_are_all_answered(shared_daemon: Daemon) -> None:
    async with httpx.AsyncClient(base_url=shared_daemon.url, timeout=TIMEOUT) as client:
        texts = await asyncio.gather(*(ask(client, f"{number}. {QUESTIONS[number % 8]}") for number in range(24)))
    assert all(texts)
