"""Many streams through one loaded model."""

from __future__ import annotations

import asyncio
import json
import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import llama_cpp
import numpy as np

from registry.name import ModelName
from registry.store import ModelStore
from runner.chat.template import ChatTemplate
from runner.chat.types import Message
from runner.engine import Chunk, SamplerPlan
from runner.llamacpp.engine import LlamaEngine
from runner.llamacpp.library import Library
from runner.loaded_model import LoadOptions
from runner.sampling import SamplingParams
from tests.end_to_end.conftest import MODEL, TIMEOUT, Daemon

QUESTIONS = [
    "Why is the sky blue?",
    "Name three colours.",
    "What is a lighthouse for?",
    "How do bees make honey?",
    "What is a piano?",
    "Write one sentence about the sea.",
    "What do llamas eat?",
    "How many days are in a week?",
]
ANSWER_TOKENS = 16
LIKELIEST = 20
TOLERANCE = 1.5
"""How far the log-probability of one of the likeliest tokens may move (SmolLM2-135M, Q4_1).

llama.cpp's attention sums in 16 bits when a step has fewer than 64 rows and in 32 bits when it has more, and prompts
computed together have more; quantized weights and activations let that difference grow. Steps of the same shape
agree to the bit.
"""


Row = np.ndarray[Any, Any]


def log_probabilities(row: Row) -> Row:
    total: np.float64 = np.logaddexp.reduce(row.astype(np.float64))
    return np.asarray(row - total)


@dataclass(frozen=True)
class Said:
    """A greedy answer, with the log-probabilities of its tokens and of the likeliest in place of each."""

    text: str
    tokens: list[dict[str, Any]]
    prompt_tokens: int

    def may_begin(self, other: Said) -> bool:
        """Whether the other one's first token is the likeliest here, or nearly so: a near tie may be decided so."""
        likely = {one["token"]: one["logprob"] for one in self.tokens[0]["top_logprobs"]}
        return bool(likely.get(other.tokens[0]["token"], -math.inf) > max(likely.values()) - TOLERANCE)


async def ask(client: httpx.AsyncClient, question: str) -> Said:
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": question}],
        "logprobs": True,
        "top_logprobs": LIKELIEST,
        "options": {"temperature": 0, "num_predict": ANSWER_TOKENS},
    }
    text = ""
    tokens: list[dict[str, Any]] = []
    async with client.stream("POST", "/api/chat", json=body) as response:
        assert response.status_code == 200, await response.aread()
        async for line in response.aiter_lines():
            record: dict[str, Any] = json.loads(line)
            assert "error" not in record, record
            text += record["message"]["content"]
            tokens += record.get("logprobs") or []
    assert record["done"]
    return Said(text, tokens, record["prompt_eval_count"])


async def test_eight_streams_at_once_are_answered_as_each_is_alone(shared_daemon: Daemon) -> None:
    async with httpx.AsyncClient(base_url=shared_daemon.url, timeout=TIMEOUT) as client:
        alone = [await ask(client, question) for question in QUESTIONS]
        together = await asyncio.gather(*(ask(client, question) for question in QUESTIONS))
    for one, beside in zip(alone, together, strict=True):
        assert one.may_begin(beside), (one.text, beside.text)
        assert one.prompt_tokens == beside.prompt_tokens
        said = bytes(byte for token in beside.tokens for byte in token["bytes"])
        assert said.decode("utf-8", "replace") == beside.text != ""


def test_eight_answers_in_one_batch_have_the_logits_each_has_alone(smollm2_store: Path) -> None:
    """Every token of eight greedy answers is computed alone and again beside the seven others."""
    path = ModelStore(smollm2_store).find(ModelName.parse(MODEL)).model_path
    # One thread: nobody gives way to neighbours here, and the numbers are the same.
    engine = LlamaEngine(Library(), path, LoadOptions(context_length=2048, max_sequences=8, num_thread=1))
    sampler = engine.create_sampler(SamplerPlan(SamplingParams(temperature=0), 1), [])
    template = ChatTemplate(engine.chat_template or "", engine.template_tokens)
    texts = [template.render((Message("user", question),)) for question in QUESTIONS]
    prompts = [engine.tokenize(text, add_special=True, parse_special=True) for text in texts]

    def logits(row: int) -> Row:
        pointer = llama_cpp.llama_get_logits_ith(engine._model.context, row)
        return np.ctypeslib.as_array(pointer, shape=(engine.info.vocabulary,)).copy()

    answers: list[list[int]] = []
    alone: list[list[Row]] = []
    for prompt in prompts:
        answer, rows = engine.step([Chunk(0, 0, prompt, sampler)]), [logits(len(prompt) - 1)]
        while len(answer) < ANSWER_TOKENS:
            position = len(prompt) + len(answer) - 1
            answer += engine.step([Chunk(0, position, answer[-1:], sampler)])
            rows.append(logits(0))
        engine.remove(0)
        answers.append(answer)
        alone.append(rows)

    differences = []
    engine.step([Chunk(number, 0, prompt, sampler) for number, prompt in enumerate(prompts)])
    for place in range(ANSWER_TOKENS - 1):
        engine.step(
            [Chunk(n, len(prompts[n]) + place, answers[n][place : place + 1], sampler) for n in range(len(prompts))]
        )
        for number in range(len(prompts)):
            expected, found = log_probabilities(alone[number][place + 1]), log_probabilities(logits(number))
            likeliest = np.argsort(-expected)[:LIKELIEST]
            differences.append(float(np.abs(found - expected)[likeliest].max()))
            assert expected.max() - expected[int(found.argmax())] < TOLERANCE, "another token only in a near tie"
    assert max(differences) < TOLERANCE, max(differences)
    assert statistics.median(differences) < TOLERANCE / 3, statistics.median(differences)
    sampler.close()
    engine.close()


async def test_more_streams_than_sequences_are_all_answered(shared_daemon: Daemon) -> None:
    async with httpx.AsyncClient(base_url=shared_daemon.url, timeout=TIMEOUT) as client:
        answers = await asyncio.gather(*(ask(client, f"{number}. {QUESTIONS[number % 8]}") for number in range(24)))
    assert all(answer.text for answer in answers)
