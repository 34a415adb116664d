"""A model with a recurrent memory, through the worker's loop: its state can be dropped, never cut."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.chat.types import ChatRequest, Failed, Finished, Limits, TextPrompt
from runner.errors import Unsupported
from runner.llamacpp.engine import LlamaEngine
from runner.llamacpp.library import Library
from runner.loaded_model import LoadOptions
from runner.messages import Events, Report
from runner.sampling import SamplingParams
from runner.worker.commands import CancelSequence, Stop
from runner.worker.loop import Loop
from runner.worker.prompt import prepare_prompt
from runner.worker.sequence import Sequence
from tests.tiny_recurrent_model import write_tiny_recurrent_model

WINDOW = 512


@pytest.fixture
def engine(library: Library, tmp_path: Path) -> Iterator[LlamaEngine]:
    path = write_tiny_recurrent_model(tmp_path / "mamba.gguf")
    engine = LlamaEngine(library, path, LoadOptions(WINDOW, max_sequences=8, num_batch=64, num_thread=1))
    yield engine
    engine.close()


def request(text: str, *, count: int = 20, shift: bool = False) -> ChatRequest:
    return ChatRequest(
        TextPrompt(text),
        SamplingParams(temperature=0),
        Limits(num_predict=count, shift=shift),
        wants_context=True,
    )


def run(engine: LlamaEngine, *requests: ChatRequest, cancelled: str | None = None) -> dict[str, list[int]]:
    """Tokens of prompt and answer by the number of the request, all answered together."""
    answers: dict[str, list[int]] = {}

    def note(report: Report) -> None:
        for name, event in report.events if isinstance(report, Events) else []:
            assert not isinstance(event, Failed)
            if isinstance(event, Finished):
                assert event.context is not None
                answers[name] = list(event.context)
            elif cancelled is not None:
                loop.post(CancelSequence(cancelled))
        if len(answers) == len(requests) - (cancelled is not None):
            loop.post(Stop())

    loop = Loop(engine, note)
    for number, asked in enumerate(requests):
        prompt = prepare_prompt(asked, engine)
        loop.post(Sequence(str(number), asked, prompt.tokens, window=prompt.window, seed=1, received_ns=0))
    loop.run()
    return answers


def test_its_window_is_refused_to_shift(engine: LlamaEngine) -> None:
    assert not engine.info.can_shift
    with pytest.raises(Unsupported, match="cannot be shifted"):
        prepare_prompt(request("hello", shift=True), engine)


def test_streams_together_get_what_each_gets_alone(engine: LlamaEngine) -> None:
    requests = [request(f"prompt {number} " * (number + 1)) for number in range(6)]
    together = run(engine, *requests)
    for number, asked in enumerate(requests):
        assert run(engine, asked)["0"] == together[str(number)]


def test_streams_that_outgrow_the_window_take_turns_and_none_changes(engine: LlamaEngine) -> None:
    requests = [request(f"{number}" * 150, count=200) for number in range(4)]
    together = run(engine, *requests)
    for number, asked in enumerate(requests):
        assert run(engine, asked)["0"] == together[str(number)]


def test_a_cancelled_stream_leaves_no_trace_in_the_next_ones(engine: LlamaEngine) -> None:
    asked = request("a clean start")
    alone = run(engine, asked)["0"]
    assert run(engine, request("left behind", count=400), asked, cancelled="0") == {"1": alone}
    assert run(engine, asked)["0"] == alone
