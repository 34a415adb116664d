"""Guesses in a step of the real engine: what is sampled is what would be sampled without them."""

from __future__ import annotations

import queue
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.chat.types import ChatRequest, Failed, Finished, Limits, TextDelta, TextPrompt
from runner.engine import Chunk, SamplerPlan
from runner.llamacpp.engine import LlamaEngine
from runner.llamacpp.library import Library
from runner.loaded_model import LoadOptions
from runner.messages import CacheOptions, Events, Report
from runner.sampling import Constraint, ConstraintKind, SamplingParams
from runner.worker.commands import Stop
from runner.worker.loop import Loop
from runner.worker.sequence import Sequence
from tests.runner.worker.test_loop import TIMEOUT

PROMPT = [5, 9, 3, 7, 5, 9, 3]
ROUNDS = 1500
TOP = 3
LIMIT_OF_8_DEGREES = 26.1
"""Chi-square beyond which one in a thousand fair samples lies."""


@pytest.fixture(scope="module")
def engine(library: Library, tiny_model: Path) -> Iterator[LlamaEngine]:
    """Without flash attention, whose sums of 16 bits come out otherwise with other rows beside them."""
    options = LoadOptions(context_length=1024, max_sequences=4, num_thread=1, flash_attention="off")
    engine = LlamaEngine(library, tiny_model, options)
    yield engine
    engine.close()


def pair(engine: LlamaEngine, plan: SamplerPlan, guess: int | None) -> tuple[int, int]:
    """The two tokens that follow the prompt, the first of them guessed."""
    sampler = engine.create_sampler(plan, PROMPT)
    guesses = [] if guess is None else [guess]
    chunk = Chunk(0, 0, [*PROMPT, *guesses], sampler, drafted=len(guesses))
    [first] = engine.step([chunk])
    if first == guess:
        second = engine.sample_next(chunk, 1)
    else:
        engine.cut(0, len(PROMPT))
        [second] = engine.step([Chunk(0, len(PROMPT), [first], sampler)])
    sampler.close()
    engine.remove(0)
    return first, second


def test_sampled_tokens_are_distributed_as_without_guesses(engine: LlamaEngine) -> None:
    params = SamplingParams(temperature=1.0, top_k=TOP, top_p=1.0)
    plain = Counter(pair(engine, SamplerPlan(params, seed), None) for seed in range(ROUNDS))
    likely = Counter(first for first, _ in plain.elements()).most_common(1)[0][0]
    guessed = Counter(pair(engine, SamplerPlan(params, seed), likely) for seed in range(ROUNDS, 2 * ROUNDS))
    assert 0.2 < sum(count for (first, _), count in guessed.items() if first == likely) / ROUNDS < 0.95
    pairs = plain.keys() | guessed.keys()
    assert len(pairs) == TOP**2
    square = sum((plain[one] - guessed[one]) ** 2 / (plain[one] + guessed[one]) for one in pairs)
    assert square < LIMIT_OF_8_DEGREES


def test_the_same_seed_gives_the_same_tokens_whatever_is_guessed(engine: LlamaEngine) -> None:
    params = SamplingParams(temperature=1.0, top_k=TOP, top_p=1.0, repeat_penalty=1.3)
    for seed in range(50):
        plan = SamplerPlan(params, seed)
        first, second = pair(engine, plan, None)
        assert pair(engine, plan, first) == (first, second)
        assert pair(engine, plan, (first + 1) % 100) == (first, second)


def answer(engine: LlamaEngine, *requests: ChatRequest) -> list[tuple[str, Finished]]:
    """The texts of requests that run together, each with its end."""
    reports: queue.Queue[Report] = queue.Queue()
    loop = Loop(engine, reports.put, cache=CacheOptions(memory_bytes=0))
    texts = dict.fromkeys(map(str, range(len(requests))), "")
    ends: dict[str, Finished] = {}
    for name, request in zip(texts, requests, strict=True):
        constraint = request.constraint and engine.compile_constraint(request.constraint)
        loop.post(Sequence(name, request, PROMPT * 3, window=250, seed=3, received_ns=0, constraint=constraint))
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        while len(ends) < len(requests):
            report = reports.get(timeout=TIMEOUT)
            for name, event in report.events if isinstance(report, Events) else ():
                assert not isinstance(event, Failed), event
                if isinstance(event, TextDelta):
                    texts[name] += event.text
                elif isinstance(event, Finished):
                    ends[name] = event
    finally:
        loop.post(Stop())
        thread.join(TIMEOUT)
    return [(texts[name], ends[name]) for name in texts]


def request(draft: int | None, constraint: Constraint | None = None, logprobs: int | None = None) -> ChatRequest:
    params = SamplingParams(temperature=0)
    limits = Limits(num_predict=120, num_draft=draft)
    return ChatRequest(TextPrompt(""), params, limits, constraint=constraint, logprobs=logprobs)


def test_a_constrained_answer_is_the_same_with_guesses(engine: LlamaEngine) -> None:
    repeating = Constraint(ConstraintKind.REGEX, "(abcdefgh ){10}", "format")
    [(plain, _)] = answer(engine, request(0, repeating))
    [(drafted, end)] = answer(engine, request(None, repeating))
    assert plain == drafted == "abcdefgh " * 10
    assert end.usage.accepted_tokens <= end.usage.drafted_tokens


def test_answers_with_and_without_guesses_run_together(engine: LlamaEngine) -> None:
    repeating = Constraint(ConstraintKind.REGEX, "(abcdefgh ){10}", "format")
    together = [request(None, repeating, logprobs=2), request(0, repeating), request(4, repeating)]
    assert {text for text, _ in answer(engine, *together)} == {"abcdefgh " * 10}
