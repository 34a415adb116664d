"""Requests with several adapters take turns: no step mixes them, nobody starves, and nothing computed is shared."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.adapters import AdapterSet, AdapterUse, scope_with
from runner.chat.types import ChatRequest, Finished, Limits, TextPrompt
from runner.engine import Chunk
from runner.messages import Generate
from runner.worker.control import Control
from runner.worker.scheduler import Scheduler
from runner.worker.sequence import Sequence as AnswerSequence
from tests.fake_engine import FakeEngine
from tests.runner.worker.test_loop import Driver

PLAIN: AdapterSet = ()
ONE: AdapterSet = (AdapterUse("/one", "sha256:1"),)
HALF: AdapterSet = (AdapterUse("/one", "sha256:1", 0.5),)
BOTH: AdapterSet = (*ONE, AdapterUse("/two", "sha256:2"))
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
    posted: list[object] = []
    control = Control(engine, posted.append, lambda _: None)
    for name, adapters in (("a", PLAIN), ("b", ONE), ("c", HALF)):
        control.handle(Generate(name, msgspec.structs.replace(request(adapters), cache_scope="key")))
    control._pool.shutdown(wait=True)
    scopes = {one.request_id: one.request.cache_scope for one in posted if isinstance(one, AnswerSequence)}
    assert engine.loaded_adapters == {"sha256:1"}
    assert scopes["a"] == "key"
    assert len(set(scopes.values())) == 3


@pytest.mark.parametrize(("one", "other"), [(ONE, HALF), (ONE, BOTH), (PLAIN, ONE)])
def test_scopes_differ_with_the_adapters_and_with_the_scope(one: AdapterSet, other: AdapterSet) -> None:
    assert scope_with("a", one) != scope_with("a", other)
    assert scope_with("a", one) != scope_with("b", one)
