"""Contexts that grow under their sequences: tiny models of every kind of memory."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runner.chat.types import ChatRequest, Failed, Finished, Limits, TextPrompt
from runner.engine import Chunk, Move, SamplerPlan, Window
from runner.llamacpp.engine import LlamaEngine
from runner.llamacpp.library import Library
from runner.loaded_model import LoadOptions
from runner.messages import Events, Grow, Grown, Report, RoomGiven, RoomWanted, WindowWanted
from runner.sampling import SamplingParams
from runner.worker.commands import Stop
from runner.worker.loop import Loop
from runner.worker.prompt import prepare_prompt
from runner.worker.sequence import Sequence
from tests.runner.worker.test_loop import at_once
from tests.tiny_hybrid_model import write_tiny_hybrid_model
from tests.tiny_model import write_tiny_model
from tests.tiny_recurrent_model import write_tiny_recurrent_model

LONGEST = 4096


def options(window: int, longest: int = LONGEST) -> LoadOptions:
    """Without flash attention and on one thread: both change in which order numbers are added up."""
    return LoadOptions(
        window, max_sequences=4, num_batch=64, longest_context=longest, num_thread=1, flash_attention="off"
    )


@pytest.fixture(params=[write_tiny_model, write_tiny_recurrent_model, write_tiny_hybrid_model])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    write: Callable[..., Path] = request.param
    return write(tmp_path / "tiny.gguf", context_length=LONGEST)


@pytest.fixture
def engine(library: Library, path: Path) -> Iterator[LlamaEngine]:
    engine = LlamaEngine(library, path, options(256))
    yield engine
    engine.close()


def ask(text: str, count: int, *, deterministic: bool = False) -> ChatRequest:
    return ChatRequest(
        # Guesses would change the shapes of steps as time goes by, and with them the last bits of what is computed.
        TextPrompt(text), SamplingParams(temperature=0), Limits(num_predict=count, num_draft=0),
        deterministic=deterministic, wants_context=True,
    )  # fmt: skip


def answers(engine: LlamaEngine, *requests: ChatRequest, grows_at: int | None = None) -> tuple[list[list[int]], int]:
    """Tokens of prompt and answer of each request, and how often the window grew; a daemon that grants everything.

    It grows of itself when `grows_at` tokens have come.
    """
    told: dict[str, list[int]] = {}
    grown = 0

    def note(report: Report) -> None:
        nonlocal grown, grows_at
        if isinstance(report, WindowWanted):
            loop.post(Grow(max(2 * engine.info.context_length, report.cells)))
        elif isinstance(report, RoomWanted):
            loop.post(RoomGiven(report.purpose, report.size))
        elif isinstance(report, Grown):
            grown += 1
        elif isinstance(report, Events):
            for name, event in report.events:
                assert not isinstance(event, Failed), event
                if isinstance(event, Finished):
                    assert event.context is not None
                    told[name] = list(event.context)
            if grows_at is not None:
                grows_at -= len(report.tokens)
                if grows_at <= 0:
                    grows_at = None
                    loop.post(Grow(2 * engine.info.context_length))
        if len(told) == len(requests):
            loop.post(Stop())

    loop = Loop(engine, note, aside=at_once)
    for number, asked in enumerate(requests):
        prompt = prepare_prompt(asked, engine)
        loop.post(Sequence(str(number), asked, prompt.tokens, window=prompt.window, seed=1, received_ns=0))
    loop.run()
    return [told[str(number)] for number in range(len(requests))], grown


def test_an_answer_outgrows_its_window_and_reads_as_in_a_large_one(library: Library, path: Path) -> None:
    small = LlamaEngine(library, path, options(256))
    large = LlamaEngine(library, path, options(2048, longest=0))
    request = ask("once upon a time", 600)
    found, growths = answers(small, request)
    expected, _ = answers(large, request)
    assert growths >= 1
    assert small.info.context_length == 256 << growths
    assert found == expected
    assert len(found[0]) > 256
    for one in (small, large):
        one.close()


def test_what_was_computed_is_taken_over_by_those_that_begin_alike(engine: LlamaEngine) -> None:
    beginning = "a text that two requests begin with, word for word "
    first, second = ask(beginning + "one", 8), ask(beginning + "two", 8)
    [alone], _ = answers(engine, second)
    (_, beside), _ = answers(engine, first, second)
    assert beside == alone
    [[again], [once_more]] = (answers(engine, second)[0] for _ in range(2))
    assert again == once_more == alone


def test_running_streams_go_on_after_a_growth_in_the_middle(engine: LlamaEngine) -> None:
    requests = [ask(f"{number} prompt " * 3, 30) for number in range(3)]
    plain, _ = answers(engine, *requests)
    moved, growths = answers(engine, *requests, grows_at=1)
    assert growths == 1
    assert engine.info.context_length == 512
    assert moved == plain


def test_steps_go_on_while_a_larger_window_is_made(engine: LlamaEngine) -> None:
    prompt = engine.tokenize("a text that is being read", add_special=True, parse_special=False)
    sampler = engine.create_sampler(SamplerPlan(SamplingParams(temperature=0), 1), prompt)

    def answer(during: Callable[[int], None]) -> list[int]:
        tokens = engine.step([Chunk(0, 0, prompt, sampler)])
        while len(tokens) < 60:
            during(len(prompt) + len(tokens) - 1)
            tokens += engine.step([Chunk(0, len(prompt) + len(tokens) - 1, tokens[-1:], sampler)])
        engine.remove(0)
        return tokens

    plain = answer(lambda _: None)
    made: queue.SimpleQueue[Window] = queue.SimpleQueue()
    thread = threading.Thread(target=lambda: made.put(engine.make_window(1024)))

    def move(length: int) -> None:
        if length == len(prompt) + 10:
            thread.start()
        if length == len(prompt) + 50:
            assert engine.move_into(made.get(timeout=60), [Move(0, length)])

    assert answer(move) == plain
    thread.join()
    assert engine.info.context_length == 1024
    engine.make_window(2048)  # closing the engine lets go of one that nobody has moved into
    sampler.close()


def test_a_deterministic_answer_is_the_same_in_a_context_that_grew_for_it(library: Library, path: Path) -> None:
    growing = LlamaEngine(library, path, options(256))
    request = ask("a long tale " * 40, 900, deterministic=True)
    [first], _ = answers(growing, request)
    [again], growths = answers(growing, request)
    assert first == again, "computed in a context that moved, and in one that was large enough"
    assert growths == 0, "it has a context of its own"
    growing.close()
