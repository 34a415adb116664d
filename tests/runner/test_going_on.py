"""Answers go on where they stood when their worker died: real loops over fake engines, ended at any frame."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Sequence
from functools import cache

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.chat.types import (
    ChatEvent,
    ChatPrompt,
    ChatRequest,
    Failed,
    Finished,
    Limits,
    Message,
    ScoredToken,
    Started,
    TextDelta,
    TextPrompt,
    ThinkingDelta,
    Tool,
    ToolCallDelta,
)
from runner.engine import Chunk, TokenScore
from runner.messages import Command, Events, Report, decode_command, encode_frame
from runner.supervisor.client import WorkerClient
from runner.supervisor.line import Line
from runner.supervisor.stream import EventStream
from runner.supervisor.suspects import Suspects
from runner.worker.commands import Stop
from runner.worker.control import Control
from runner.worker.loop import Loop
from tests.fake_engine import FakeEngine

TIMEOUT = 60
END = 256
SCRIPTS = {
    "plain": "Hello wörld, a 🐦 sings. STOP and no more",
    "calls": "<think>I should ping é</think>Now: "
    '<tool_call>\n{"name": "ping", "arguments": {"host": "ä"}}\n</tool_call>',
}
PING = Tool("ping", {"type": "object", "properties": {"host": {"type": "string"}}})


class ScriptedEngine(FakeEngine):
    """Tokens are bytes. A prompt that names a script is answered with it, and each token has a score of its own."""

    def __init__(self) -> None:
        super().__init__(cells=600, longest=600)
        self._info = msgspec.structs.replace(self._info, vocabulary=END + 1)

    @property
    def chat_template(self) -> str:
        marks = "{% if false %}<tool_call></tool_call><think></think>{{ tools }}{% endif %}"
        return marks + "{{ messages[0].content }}:"

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        return list(text.encode())

    def token_bytes(self, token: int) -> bytes:
        return bytes([token])

    def written(self, token: int) -> bytes:
        return b"<end>" if token == END else bytes([token])

    def ends_generation(self, token: int) -> bool:
        return token == END

    def next_token(self, held: Sequence[int]) -> int:
        name, _, said = bytes(held).partition(b":")
        script = SCRIPTS[name.decode()].encode()
        assert script.startswith(said)
        return script[len(said)] if len(said) < len(script) else END

    def step(self, chunks: Sequence[Chunk]) -> list[int]:
        tokens = super().step(chunks)
        for chunk in chunks:
            for number, target in enumerate(chunk.scoring.targets if chunk.scoring else ()):
                assert chunk.scoring is not None
                place = chunk.start + number + 1
                chunk.scoring.scores[place] = score(target, place)
        return tokens

    def sample_next(self, chunk: Chunk, right: int) -> int:
        token = super().sample_next(chunk, right)
        assert chunk.sampler is not None
        place = chunk.start + len(chunk.tokens) - chunk.drafted + right
        chunk.sampler.score = score(token, place)
        return token


def score(token: int, place: int) -> TokenScore:
    return TokenScore(token, -place / 100, ((token ^ 1, -1.0),))


class Worker:
    """A worker without a process: what it says comes out of `reports`."""

    def __init__(self, engine: FakeEngine) -> None:
        self.reports: queue.Queue[Report] = queue.Queue()
        self._loop = Loop(engine, self.reports.put)
        self.control = Control(engine, self._loop.post, self.reports.put)
        self._thread = threading.Thread(target=self._loop.run)
        self._thread.start()

    def take(self, frame: bytes) -> None:
        command: Command = decode_command(frame[4:])
        self.control.handle(command)

    def end(self) -> None:
        self._loop.post(Stop())
        self._thread.join(TIMEOUT)
        assert not self._thread.is_alive()


def answers(kind: type[FakeEngine], requests: Sequence[ChatRequest], dies_after: int | None) -> list[list[ChatEvent]]:
    """The events of all requests, with a worker that dies after so many frames."""
    line = Line("m", Suspects())
    streams = [line.generate(str(number), request) for number, request in enumerate(requests)]
    while not all(is_over(stream) for stream in streams):
        worker = Worker(kind())
        client = WorkerClient(worker.take, lambda _: None, lambda: 0.0)
        line.found(client)
        try:
            while not all(is_over(stream) for stream in streams) and dies_after != 0:
                report = worker.reports.get(timeout=TIMEOUT)
                client.feed(encode_frame(report))
                if dies_after is not None and isinstance(report, Events):
                    dies_after -= 1
        finally:
            worker.end()
        if dies_after == 0:
            line.lost("was ended by a test")
        dies_after = None
    return [asyncio.run(read(stream)) for stream in streams]


def is_over(stream: EventStream) -> bool:
    return bool(stream._events) and isinstance(stream._events[-1], Finished | Failed)


async def read(stream: EventStream) -> list[ChatEvent]:
    return [event async for event in stream]


def told(events: Sequence[ChatEvent]) -> list[object]:
    """What has to be the same however often a worker dies: not durations, not what was cached, not ids."""
    return [_told(event) for event in events]


def _told(event: ChatEvent) -> object:
    match event:
        case ToolCallDelta(index, call_id, name, arguments):
            return index, bool(call_id), name, arguments
        case Started(prompt_tokens):
            return prompt_tokens
        case Finished():
            usage = event.usage
            counts = usage.prompt_tokens, usage.completion_tokens, usage.thinking_tokens
            return event.reason, event.stop_string, event.truncated, event.context, counts
        case _:
            return event


def chat(script: str, **options: object) -> ChatRequest:
    prompt = ChatPrompt((Message("user", script),), tools=(PING,))
    return msgspec.structs.replace(ChatRequest(prompt), **options)


SCRIPTED = (
    chat("calls"),
    chat("plain", logprobs=1, stop=("STOP",)),
    chat("plain", limits=Limits(num_predict=30)),
    chat("plain", deterministic=True),
    msgspec.structs.replace(ChatRequest(TextPrompt("plain:")), logprobs=1, echo=True, stop=("sings. no",)),
    chat("calls", logprobs=0),
)
HASHED = (
    ChatRequest(TextPrompt("shifting prompt"), limits=Limits(num_predict=90, num_ctx=30, shift=True, num_keep=3)),
    ChatRequest(TextPrompt("to be stopped"), limits=Limits(num_predict=40), stop=("q", "ab"), wants_context=True),
    ChatRequest(TextPrompt("to be stopped"), limits=Limits(num_predict=25)),
)


class HashingEngine(FakeEngine):
    def __init__(self) -> None:
        super().__init__(cells=120, max_sequences=2)


@cache
def undisturbed_alone(number: int) -> list[object]:
    return told(answers(ScriptedEngine, [SCRIPTED[number]], None)[0])


@cache
def undisturbed_together() -> list[list[object]]:
    return [told(events) for events in answers(HashingEngine, HASHED, None)]


@settings(max_examples=40, deadline=None)
@given(
    picked=st.lists(st.sampled_from(range(len(SCRIPTED))), min_size=1, max_size=3, unique=True),
    dies_after=st.integers(1, 110),
)
def test_nothing_is_lost_or_told_twice_whenever_a_worker_dies(picked: list[int], dies_after: int) -> None:
    found = answers(ScriptedEngine, [SCRIPTED[number] for number in picked], dies_after)
    assert [told(events) for events in found] == [undisturbed_alone(number) for number in picked]


@pytest.mark.parametrize("dies_after", range(1, 40))
def test_log_probabilities_that_were_held_back_are_told_when_their_text_comes(dies_after: int) -> None:
    # Of two that run at the same time: frames come only when there is something to tell.
    found = answers(ScriptedEngine, [SCRIPTED[0], SCRIPTED[4]], dies_after)
    assert [told(events) for events in found] == [undisturbed_alone(0), undisturbed_alone(4)]


@pytest.mark.parametrize("dies_after", range(1, 96, 5))
def test_windows_that_shift_and_stop_strings_go_on_as_well(dies_after: int) -> None:
    assert [told(events) for events in answers(HashingEngine, HASHED, dies_after)] == undisturbed_together()


def test_scripts_are_told_in_all_their_parts() -> None:
    events = answers(ScriptedEngine, SCRIPTED, None)
    assert "".join(event.text for event in events[0] if isinstance(event, ThinkingDelta)) == "I should ping é"
    assert any(isinstance(event, ToolCallDelta) and event.name == "ping" for event in events[0])
    scored = [token for event in events[1] if isinstance(event, TextDelta) for token in event.tokens]
    place = len("plain:")
    assert scored[:2] == [
        ScoredToken(b"H", -place / 100, ((b"I", -1.0),)),
        ScoredToken(b"e", -(place + 1) / 100, ((b"d", -1.0),)),
    ]
    assert isinstance(events[1][-1], Finished) and events[1][-1].stop_string == "STOP"


def test_the_time_and_the_cache_of_an_interrupted_answer_are_told_in_all() -> None:
    [events] = answers(ScriptedEngine, SCRIPTED[:1], 20)
    started, finished = events[0], events[-1]
    assert isinstance(started, Started) and isinstance(finished, Finished)
    assert (finished.usage.cached_tokens, finished.usage.cache.total) == (started.cached_tokens, started.cached_tokens)
    assert finished.usage.prompt_ns > 0 and finished.usage.decode_ns > 0
