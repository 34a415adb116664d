"""A real draft model beside a real model: which ones fit, and answers that are those without it."""

from __future__ import annotations

import math
import queue
import threading
from collections import Counter
from collections.abc import Iterator
from collections.abc import Sequence as ReadOnlySequence
from pathlib import Path
from typing import Any

import pytest

from runner.chat.types import ChatRequest, Failed, Finished, Limits, TextPrompt
from runner.draft_model import DraftChunk, DraftFiles
from runner.engine import Chunk
from runner.llamacpp.engine import LlamaEngine
from runner.llamacpp.library import Library
from runner.loaded_model import LoadOptions
from runner.messages import CacheOptions, Events, Report
from runner.sampling import Constraint, ConstraintKind, SamplingParams
from runner.worker.commands import Stop
from runner.worker.loop import Loop
from runner.worker.sequence import Sequence
from tests.runner.worker.test_loop import TIMEOUT
from tests.tiny_model import write_tiny_model
from tests.tiny_recurrent_model import write_tiny_recurrent_model

PROMPT = [5, 9, 3, 7, 80, 41]
TOP = 3
ROUNDS = 1000


def open_engine(library: Library, path: Path, draft: Path | None, *, window: int = 512) -> LlamaEngine:
    """Without flash attention, whose sums of 16 bits come out otherwise with other rows beside them."""
    files = None if draft is None else DraftFiles("small", draft.stem, (str(draft),))
    options = LoadOptions(window, max_sequences=4, num_thread=1, flash_attention="off", draft=files)
    return LlamaEngine(library, path, options)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the same vocabulary, and another mind."""
    return write_tiny_model(tmp_path_factory.mktemp("draft") / "other.gguf", seed=9)


@pytest.fixture(scope="module")
def twin(library: Library, tiny_model: Path) -> Iterator[LlamaEngine]:
    """A model that drafts for itself."""
    engine = open_engine(library, tiny_model, tiny_model)
    yield engine
    engine.close()


def ask(count: int = 120, *, uses: bool = True, seed: int | None = None, text: str = "") -> ChatRequest:
    """Greedy, or with a `seed` sampled; `text` is all that may be said."""
    params = SamplingParams(temperature=0) if seed is None else SamplingParams(seed=seed, top_k=TOP, top_p=1.0)
    limits = Limits(num_predict=count, uses_draft_model=uses)
    constraint = Constraint(ConstraintKind.REGEX, text, "format") if text else None
    return ChatRequest(TextPrompt(""), params, limits, constraint=constraint, wants_context=True)


class Clock:
    """Moved on by steps alone, so that what pays does not depend on the machine."""

    def __init__(self, engine: LlamaEngine, patch: pytest.MonkeyPatch) -> None:
        self.now_ns = 0
        self._patch = patch
        self._slow(engine, 1_000_000)
        if engine.draft is not None:
            self._slow(engine.draft, 50_000)

    def _slow(self, one: Any, ns: int) -> None:
        step = one.step

        def slowed(chunks: ReadOnlySequence[Any]) -> Any:
            self.now_ns += ns + 1_000 * sum(len(chunk.tokens) for chunk in chunks)
            return step(chunks)

        self._patch.setattr(one, "step", slowed)


def answer(engine: LlamaEngine, *requests: ChatRequest, prompt: list[int] = PROMPT) -> list[Finished]:
    """The ends of requests that run together; each has the tokens of its answer."""
    reports: queue.Queue[Report] = queue.Queue()
    ends: dict[str, Finished] = {}
    names = list(map(str, range(len(requests))))
    with pytest.MonkeyPatch.context() as patch:
        clock = Clock(engine, patch)
        loop = Loop(engine, reports.put, cache=CacheOptions(memory_bytes=0), clock=lambda: clock.now_ns)
        for name, request in zip(names, requests, strict=True):
            constraint = request.constraint and engine.compile_constraint(request.constraint)
            seed = request.sampling.seed or 0
            loop.post(Sequence(name, request, [*prompt], window=250, seed=seed, received_ns=0, constraint=constraint))
        thread = threading.Thread(target=loop.run)
        thread.start()
        try:
            while len(ends) < len(requests):
                report = reports.get(timeout=TIMEOUT)
                for name, event in report.events if isinstance(report, Events) else ():
                    assert not isinstance(event, Failed), event
                    if isinstance(event, Finished):
                        ends[name] = event
        finally:
            loop.post(Stop())
            thread.join(TIMEOUT)
    for resting in (*range(engine.info.max_sequences), *engine.info.resting_ids):
        engine.remove(resting)
    return [ends[name] for name in names]


def test_a_model_that_drafts_for_itself_is_right_and_the_text_is_the_same(twin: LlamaEngine) -> None:
    [plain] = answer(twin, ask(uses=False))
    [drafted] = answer(twin, ask())
    assert drafted.context == plain.context
    assert plain.usage.draft_model_tokens == 0
    assert drafted.usage.draft_model_tokens > 40
    assert drafted.usage.draft_model_accepted > 0.9 * drafted.usage.draft_model_tokens


def test_several_answers_are_guessed_for_together(twin: LlamaEngine) -> None:
    alone = [answer(twin, one)[0] for one in (ask(uses=False), ask(uses=False, text="(abcdefgh ){10}"))]
    together = answer(twin, ask(), ask(text="(abcdefgh ){10}"), ask(uses=False))
    assert [end.context for end in together] == [alone[0].context, alone[1].context, alone[0].context]
    assert together[0].usage.draft_model_accepted > 40


def test_a_draft_model_of_another_mind_is_soon_left_alone(library: Library, tiny_model: Path, other: Path) -> None:
    engine = open_engine(library, tiny_model, other)
    assert engine.info.draft_failure == ""
    [plain] = answer(engine, ask(200, uses=False))
    [drafted] = answer(engine, ask(200))
    assert drafted.context == plain.context
    assert drafted.usage.draft_model_tokens < 40
    engine.close()


def test_sampled_text_is_that_without_guesses_for_the_same_seed(twin: LlamaEngine) -> None:
    with_guesses = [answer(twin, ask(40, seed=seed))[0] for seed in range(1, 9)]
    assert sum(end.usage.draft_model_accepted for end in with_guesses) > 40
    assert [end.context for end in with_guesses] == [
        answer(twin, ask(40, uses=False, seed=seed))[0].context for seed in range(1, 9)
    ]


def test_sampled_tokens_are_distributed_as_without_a_draft_model(twin: LlamaEngine) -> None:
    plain = answer(twin, *(ask(4, uses=False, seed=seed) for seed in range(1, ROUNDS)))
    guessed = answer(twin, *(ask(4, seed=seed) for seed in range(ROUNDS, 2 * ROUNDS)))
    assert sum(end.usage.draft_model_accepted for end in guessed) > ROUNDS / 2
    ours, theirs = (Counter((end.context or ())[-3:] for end in ends) for ends in (plain, guessed))
    usual = [one for one in ours.keys() | theirs.keys() if ours[one] + theirs[one] >= 20]
    assert len(usual) > TOP**2
    square = sum((ours[one] - theirs[one]) ** 2 / (ours[one] + theirs[one]) for one in usual)
    assert square < limit_of(len(usual) - 1)


def limit_of(degrees: int) -> float:
    """Chi-square beyond which one in a thousand fair samples lies, by Wilson and Hilferty's formula."""
    part = 2 / (9 * degrees)
    return degrees * (1 - part + 3.09 * math.sqrt(part)) ** 3


def test_the_memory_that_a_draft_model_takes_is_told(library: Library, tiny_model: Path, twin: LlamaEngine) -> None:
    alone = open_engine(library, tiny_model, None)
    assert alone.draft is None
    assert alone.info.size + tiny_model.stat().st_size // 2 < twin.info.size
    alone.close()


def test_a_larger_window_is_one_for_the_draft_model_too(library: Library, tiny_model: Path) -> None:
    engine = open_engine(library, tiny_model, tiny_model, window=256)
    assert engine.draft is not None
    engine.draft.step([DraftChunk(0, 0, PROMPT)])
    engine.draft.resize(512)
    assert engine.draft.room == 512
    [guess] = engine.draft.step([DraftChunk(0, 0, PROMPT)])
    engine.draft.resize(512)
    assert engine.draft.step([DraftChunk(0, 0, PROMPT)]) == [guess]
    engine.close()


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ({"begin_token": False}, "its vocabulary has another begin token"),
        ({"more_tokens": 200}, "its vocabulary has 461 tokens, and that of the model 261"),
        ({"renamed": {100: "else"}}, "token 100 is 'else' in its vocabulary, and 'd' in that of the model"),
    ],
)
def test_what_keeps_a_model_from_drafting_is_told_and_the_model_answers_without(
    library: Library, tiny_model: Path, tmp_path: Path, written: dict[str, Any], told: str
) -> None:
    engine = open_engine(library, tiny_model, write_tiny_model(tmp_path / "draft.gguf", **written))
    assert engine.draft is None
    assert engine.info.draft_failure.startswith("The draft model small cannot be used: ")
    assert told in engine.info.draft_failure
    assert engine.step([Chunk(0, 0, PROMPT)]) == []
    engine.close()


def test_tokens_that_only_fill_up_a_vocabulary_do_not_count(library: Library, tiny_model: Path, tmp_path: Path) -> None:
    engine = open_engine(library, tiny_model, write_tiny_model(tmp_path / "draft.gguf", more_tokens=100))
    assert engine.draft is not None and engine.draft.vocabulary == 261
    engine.close()


def test_models_that_keep_whole_states_neither_draft_nor_are_drafted_for(
    library: Library, tiny_model: Path, tmp_path: Path
) -> None:
    states = write_tiny_recurrent_model(tmp_path / "states.gguf")
    for path, draft, told in ((tiny_model, states, "its memory cannot"), (states, tiny_model, "This model's memory")):
        engine = open_engine(library, path, draft)
        assert engine.draft is None and told in engine.info.draft_failure
        engine.close()


def test_a_file_that_is_no_model_drafts_for_nobody(library: Library, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + b"\xff" * 100)
    engine = open_engine(library, tiny_model, tmp_path / "broken.gguf")
    assert "cannot load the model" in engine.info.draft_failure
    engine.close()
