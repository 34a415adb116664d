"""Streams between a worker and its readers: cancelling, slow readers, and the bytes in between."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.chat.types import ChatEvent, ChatRequest, Failed, Finished, FinishReason, TextDelta, Usage
from runner.messages import Cancel, Command, Events, Generate, Pause, Resume, Stats, decode_command, encode_frame
from runner.supervisor.client import MAX_REPORT_BYTES, GarbledPipe, WorkerClient
from runner.supervisor.line import Line
from runner.supervisor.stream import PAUSE_ABOVE, EventStream
from runner.supervisor.suspects import Suspects
from tests.runner.supervisor_fixtures import ask, house, read, until

FINISHED = Finished(FinishReason.STOP, Usage(1, 0, 1, 1, 1, 1), seed=1)


class Pipe:
    """The other end of a client: what was sent, and a clock that is set by hand."""

    def __init__(self) -> None:
        self.sent: list[Command] = []
        self.now = 100.0
        self.client = WorkerClient(self.write, lambda report: None, lambda: self.now)
        self.line = Line("m", Suspects())
        self.line.found(self.client)

    def generate(self, request_id: str, request: ChatRequest) -> EventStream:
        return self.line.generate(request_id, request)

    def write(self, frame: bytes) -> None:
        self.sent.append(decode_command(frame[4:]))

    def tell(self, request_id: str, *events: ChatEvent) -> None:
        self.client.feed(encode_frame(Events([(request_id, event) for event in events])))

    def tell_stats(self, steps: int) -> None:
        self.client.feed(encode_frame(Stats(1, 0, 0, steps, steps, 0, 0, 0, 0)))


async def test_closing_a_stream_cancels_its_request_in_the_worker(tmp_path: Path) -> None:
    async with house(tmp_path) as here, await here.lease(here.model()) as lease:
        stream = lease.generate("leaver", ask("hold"))
        await anext(stream)
        await stream.aclose()
        await stream.aclose()
        assert await read(stream) == []
        await until(lambda: here.journal(kind="cancel"))
        assert [entry["request_id"] for entry in here.journal(kind="cancel")] == ["leaver"]


async def test_releasing_a_lease_cancels_what_it_still_runs(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        spec = here.model()
        lease = await here.lease(spec)
        stream = lease.generate("held", ask("hold"))
        await anext(stream)
        lease.release()
        lease.release()
        await until(lambda: here.journal(kind="cancel"))
        with pytest.raises(RuntimeError):
            lease.generate("more", ask("say 1"))
        assert here.supervisor.status()[0].leases == 0


async def test_a_finished_request_is_not_cancelled(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        spec = here.model()
        await here.say(spec)
        await here.say(spec)
        assert here.journal(kind="cancel") == []


async def test_a_slow_reader_pauses_its_own_request_and_loses_nothing(tmp_path: Path) -> None:
    async with house(tmp_path) as here, await here.lease(here.model()) as lease:
        slow = lease.generate("slow", ask("flood 20000"))
        await until(lambda: here.journal(kind="pause"))
        brisk = await read(lease.generate("brisk", ask("say 50")))
        assert len(brisk) == 51
        events = await read(slow)
        assert [event.text for event in events if isinstance(event, TextDelta)] == [
            f"word{number} " for number in range(1, 20001)
        ]
        assert isinstance(events[-1], Finished)
        assert {entry["request_id"] for entry in here.journal(kind="pause")} == {"slow"}
        assert len(here.journal(kind="resume")) <= len(here.journal(kind="pause"))


async def test_a_reader_that_waits_gets_events_as_they_come() -> None:
    pipe = Pipe()
    stream = pipe.generate("a", ask("x"))
    reading = asyncio.create_task(read(stream))
    await asyncio.sleep(0)
    pipe.tell("a", TextDelta("one"))
    await asyncio.sleep(0)
    pipe.tell("a", TextDelta("two"), FINISHED)
    assert await reading == [TextDelta("one"), TextDelta("two"), FINISHED]


async def test_events_of_unknown_requests_are_ignored() -> None:
    pipe = Pipe()
    stream = pipe.generate("a", ask("x"))
    pipe.tell("b", TextDelta("lost"), FINISHED)
    pipe.tell("a", FINISHED)
    pipe.tell("a", TextDelta("too late"))
    assert await read(stream) == [FINISHED]


async def test_pausing_and_resuming_follow_the_readers_backlog() -> None:
    pipe = Pipe()
    stream = pipe.generate("a", ask("x"))
    pipe.tell("a", *[TextDelta("x")] * PAUSE_ABOVE)
    assert [type(command) for command in pipe.sent] == [Generate]
    pipe.tell("a", *[TextDelta("x")] * 10)
    assert pipe.sent[1:] == [Pause("a")]
    for _ in range(PAUSE_ABOVE):
        await anext(stream)
    assert pipe.sent[1:] == [Pause("a"), Resume("a")]
    await stream.aclose()
    assert pipe.sent[3:] == [Cancel("a")]


async def test_a_request_id_that_is_running_is_not_taken_twice() -> None:
    pipe = Pipe()
    pipe.generate("a", ask("x"))
    with pytest.raises(ValueError, match="running already"):
        pipe.generate("a", ask("y"))


async def test_silence_counts_only_while_a_request_could_move() -> None:
    pipe = Pipe()
    pipe.now += 1000
    assert pipe.client.silence() == 0
    first = pipe.generate("first", ask("x"))
    pipe.now += 10
    assert pipe.client.silence() == 10
    pipe.tell_stats(steps=1)
    pipe.now += 5
    pipe.tell_stats(steps=1)
    assert pipe.client.silence() == 5, "a sign of life without a step is no progress"
    pipe.tell("first", *[TextDelta("x")] * (PAUSE_ABOVE + 1))
    pipe.now += 1000
    assert pipe.client.silence() == 0, "its only request is paused"
    second = pipe.generate("second", ask("x"))
    pipe.now += 1000
    assert pipe.client.silence() == 0, "the second may wait for the place of the first"
    pipe.tell("second", TextDelta("x"))
    pipe.now += 7
    assert pipe.client.silence() == 7
    second.cancel()
    first.cancel()
    pipe.now += 3
    assert pipe.client.silence() == 10, "a worker that stands still forgets nothing"
    pipe.generate("third", ask("x"))
    assert pipe.client.silence() == 10, "and a new request does not hide that"
    pipe.tell_stats(steps=1)
    assert pipe.client.silence() == 0
    pipe.tell("third", FINISHED)
    pipe.now += 1000
    assert pipe.client.silence() == 0


@given(
    texts=st.lists(st.text(max_size=50), max_size=20),
    cuts=st.lists(st.integers(min_value=1, max_value=40), min_size=1, max_size=50),
)
def test_frames_may_be_cut_anywhere(texts: list[str], cuts: list[int]) -> None:
    async def scenario() -> None:
        pipe = Pipe()
        stream = pipe.generate("a", ask("x"))
        data = b"".join(encode_frame(Events([("a", TextDelta(text))])) for text in texts)
        data += encode_frame(Events([("a", FINISHED)]))
        position, turn = 0, 0
        while position < len(data):
            size = cuts[turn % len(cuts)]
            pipe.client.feed(data[position : position + size])
            position += size
            turn += 1
        assert await read(stream) == [*(TextDelta(text) for text in texts), FINISHED]

    asyncio.run(scenario())


@given(st.binary(min_size=1, max_size=200))
def test_bytes_that_are_no_report_are_told_apart_or_awaited(data: bytes) -> None:
    async def scenario() -> None:
        pipe = Pipe()
        try:
            pipe.client.feed(data)
        except GarbledPipe:
            return
        # What was not refused is the beginning of a frame that may still come.
        assert len(data) < 4 or int.from_bytes(data[:4], "little") <= MAX_REPORT_BYTES

    asyncio.run(scenario())


async def test_a_stream_that_is_opened_after_the_end_fails_at_once() -> None:
    pipe = Pipe()
    running: EventStream = pipe.generate("a", ask("x"))
    failed = Failed("engine_crashed", "It died.")
    pipe.client.end_all(failed)
    assert await read(running) == [failed]
    assert await read(pipe.generate("b", ask("x"))) == [failed]
    assert [type(command) for command in pipe.sent] == [Generate]
