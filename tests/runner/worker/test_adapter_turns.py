"""Requests with several adapters take turns: no step mixes them, nobody starves, and nothing computed is shared."""

from __future__ import annotations

import queue
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.adapters import AdapterSet, AdapterUse, scope_with
from runner.chat.types import ChatRequest, Failed, Finished, Limits, TextPrompt
from runner.engine import Chunk
from runner.messages import Generate, Report, RoomGiven, RoomRefused, RoomWanted
from runner.worker.adapter_room import AwaitAdapters
from runner.worker.control import Control
from runner.worker.scheduler import Scheduler
from runner.worker.sequence import Sequence as AnswerSequence
from tests.fake_engine import FakeEngine
from tests.runner.worker.test_loop import TIMEOUT, Driver

PLAIN: AdapterSet = ()
ONE: AdapterSet = (AdapterUse("/one", "sha256:1", size=1_000_000),)
HALF: AdapterSet = (AdapterUse("/one", "sha256:1", 0.5, size=1_000_000),)
BOTH: AdapterSet = (*ONE, AdapterUse("/two", "sha256:2", size=500_000))
SETS = [PLAIN, ONE, HALF, BOTH]


class WatchedEngine(FakeEngine):
    """Notes which adapters each sequence was computed with."""

    def __init__(self, **arguments: object) -> None:
        super().__init__(**arguments)  # type: ignore[arg-type]
        self.seen: list[AdapterSet] = []
        self.by_token: dict[int, set[AdapterSet]] = {}

    def step(self, chunks: Sequence[Chunk]) -> list[int]:
        self.seen.append(self.adapters_in_use)
        for chunk in chunks:
            for token in chunk.tokens[:1] if chunk.start == 0 else ():
                self.by_token.setdefault(token, set()).add(self.adapters_in_use)
        return super().step(chunks)


def request(adapters: AdapterSet, count: int = 12) -> ChatRequest:
    return ChatRequest(TextPrompt("abc"), limits=Limits(num_predict=count), adapters=adapters)


def test_each_request_is_computed_with_its_own_adapters_and_all_get_on() -> None:
    engine = WatchedEngine(cells=200, max_sequences=8)
    engine.loaded_adapters |= {"sha256:1", "sha256:2"}
    driver = Driver(engine)
    names = []
    for number, adapters in enumerate(SETS * 2):
        names.append(str(number))
        asked = msgspec.structs.replace(request(adapters), cache_scope=str(number))
        driver.post(AnswerSequence(str(number), asked, [number, 1, 2], window=64, seed=1, received_ns=0))
    driver.run_to_end(*names)
    assert all(isinstance(driver.events[name][-1], Finished) for name in names)
    for number, adapters in enumerate(SETS * 2):
        assert engine.by_token[number] == {adapters}
        assert driver.text(str(number)) == engine.answer([number, 1, 2], 12)
    # In turns: none has two steps while another that could have one waits.
    first = engine.seen[: 4 * len(SETS)]
    assert all(set(first[place : place + 4]) == set(SETS) for place in range(0, len(first), 4))


@given(st.lists(st.sampled_from(SETS), min_size=1, max_size=10))
def test_a_step_has_one_set_and_nobody_waits_longer_than_there_are_sets(adapters: list[AdapterSet]) -> None:
    scheduler = Scheduler(max_sequences=16, max_rows=32)
    for number, one in enumerate(adapters):
        sequence = AnswerSequence(str(number), request(one), [1] * 200, window=512, seed=1, received_ns=0)
        scheduler.add(sequence)
        scheduler.start(sequence)
    kinds = set(adapters)
    steps = []
    for _ in range(2 * len(kinds)):
        planned = scheduler.plan_step(prefill_rows=8, now=0)
        sets = {item.sequence.request.adapters for item in planned}
        assert len(sets) == 1
        steps += list(sets)
    assert all(set(steps[place : place + len(kinds)]) == kinds for place in range(len(kinds) + 1))


def test_adapters_are_read_before_a_request_reaches_the_loop_and_share_no_cache() -> None:
    engine = FakeEngine()
    posted: queue.Queue[object] = queue.Queue()
    control = Control(engine, posted.put, lambda _: None)
    sequences: list[AnswerSequence] = []
    for name, adapters in (("a", PLAIN), ("b", ONE), ("c", HALF)):
        control.handle(Generate(name, msgspec.structs.replace(request(adapters), cache_scope="key")))
        one = posted.get(timeout=TIMEOUT)
        if isinstance(one, AwaitAdapters):
            assert engine.loaded_adapters == set(), "nothing is read before there is memory for it"
            one.go_on(None)
            one = posted.get(timeout=TIMEOUT)
        assert isinstance(one, AnswerSequence)
        sequences.append(one)
    assert engine.loaded_adapters == {"sha256:1"}
    assert sequences[0].request.cache_scope == "key"
    assert len({one.request.cache_scope for one in sequences}) == 3


class Answering(Driver):
    """A worker whose daemon gives memory for adapters up to a limit."""

    def __init__(self, engine: FakeEngine, most: int) -> None:
        super().__init__(engine)
        self.most = most
        self.wanted: list[int] = []
        self.control = Control(engine, self.loop.post, self.reports.put)

    def receive(self) -> Report:
        report = super().receive()
        if isinstance(report, RoomWanted):
            self.wanted.append(report.size)
            if report.size <= self.most:
                self.post(RoomGiven(report.purpose, report.size))
            else:
                self.post(RoomRefused(report.purpose, report.size, self.most))
        return report


def test_memory_is_asked_for_before_an_adapter_is_read_and_once_for_each() -> None:
    engine = FakeEngine(cells=200)
    driver = Answering(engine, most=2_000_000)
    with driver.running():
        for name, adapters in (("one", ONE), ("half", HALF), ("both", BOTH), ("again", BOTH)):
            driver.control.handle(Generate(name, request(adapters)))
            driver.wait_for(name)
    assert driver.wanted == [1_000_000, 1_500_000]
    assert engine.loaded_adapters == {"sha256:1", "sha256:2"}
    assert all(isinstance(driver.events[name][-1], Finished) for name in ("one", "half", "both", "again"))


def test_without_memory_for_its_adapters_a_request_fails_alone_and_may_come_again() -> None:
    engine = FakeEngine(cells=200)
    driver = Answering(engine, most=1_200_000)
    with driver.running():
        for name, adapters in (("both", BOTH), ("one", ONE), ("plain", PLAIN)):
            driver.control.handle(Generate(name, request(adapters)))
        for name in ("both", "one", "plain"):
            driver.wait_for(name)
        failed = driver.events["both"][-1]
        assert isinstance(failed, Failed)
        assert failed.code == "insufficient_memory" and "lora_scales" in failed.message
        driver.most = 2_000_000
        driver.control.handle(Generate("later", request(BOTH)))
        driver.wait_for("later")
    assert all(isinstance(driver.events[name][-1], Finished) for name in ("one", "plain", "later"))


@pytest.mark.parametrize(("one", "other"), [(ONE, HALF), (ONE, BOTH), (PLAIN, ONE)])
def test_scopes_differ_with_the_adapters_and_with_the_scope(one: AdapterSet, other: AdapterSet) -> None:
    assert scope_with("a", one) != scope_with("a", other)
    assert scope_with("a", one) != scope_with("b", one)
