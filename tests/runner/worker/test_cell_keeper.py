"""Sharing and keeping what was computed, with an engine that checks every cell."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.chat.types import CachedTokens, Finished
from runner.messages import CacheOptions
from runner.worker.commands import CancelSequence, SetPaused
from runner.worker.echo import Echo
from runner.worker.sequence import Sequence
from tests.fake_engine import FakeEngine
from tests.runner.worker.test_loop import Driver
from tests.runner.worker.test_loop import make_sequence as make_small_sequence

SHARED = [number % 26 for number in range(100)]
NOTHING_KEPT = CacheOptions(memory_bytes=0)

_blocks = st.lists(st.sampled_from([[1] * 20, [2] * 20, list(range(20)), [3], [4, 5]]), min_size=1, max_size=8)
_prompts = _blocks.map(lambda blocks: [token for block in blocks for token in block])
_workloads = st.lists(st.tuples(_prompts, st.integers(1, 30)), min_size=1, max_size=10)


def make_sequence(name: str, prompt: list[int], **options: Any) -> Sequence:
    return make_small_sequence(name, prompt, **{"window": 2000, **options})


def cached(driver: Driver, name: str) -> CachedTokens:
    finished = driver.events[name][-1]
    assert isinstance(finished, Finished)
    assert finished.usage.cached_tokens == finished.usage.cache.total
    return finished.usage.cache


def computed_rows(engine: FakeEngine) -> int:
    return sum(len(chunk.tokens) for step in engine.steps for chunk in step)


@settings(deadline=None, max_examples=100)
@given(
    _workloads,
    st.integers(200, 600),
    st.integers(1, 5),
    st.integers(8, 64),
    st.sampled_from([0, 300, 2000, 1 << 20]),
    st.integers(0, 3),
    st.sampled_from([0, 7]),
)
def test_sharing_changes_no_text(
    workload: list[tuple[list[int], int]],
    cells: int,
    max_sequences: int,
    max_rows: int,
    memory_bytes: int,
    resting: int,
    ends_every: int,
) -> None:
    engine = FakeEngine(
        cells=cells, max_sequences=max_sequences, max_rows=max_rows, resting=resting, ends_every=ends_every
    )
    driver = Driver(engine, CacheOptions(memory_bytes=memory_bytes))
    with driver.running():
        for number, (prompt, count) in enumerate(workload):
            driver.post(make_sequence(str(number), prompt, count=count, window=cells))
            if number % 3 == 2:
                driver.wait_for(str(number - 1))
        for number in range(len(workload)):
            driver.wait_for(str(number))
        if memory_bytes:
            driver.wait_until_idle()
    for number, (prompt, count) in enumerate(workload):
        assert driver.text(str(number)) == engine.answer(prompt, count)


@settings(deadline=None, max_examples=60)
@given(_workloads, st.integers(16, 80), st.sampled_from([0, 1 << 20]), st.lists(st.integers(0, 9), max_size=4))
def test_shifting_windows_beside_shared_cells_changes_no_other_text(
    workload: list[tuple[list[int], int]], window: int, memory_bytes: int, cancelled: list[int]
) -> None:
    engine = FakeEngine(cells=700, max_sequences=4)
    driver = Driver(engine, CacheOptions(memory_bytes=memory_bytes))
    for number, (prompt, _) in enumerate(workload):
        if len(prompt) < window:
            driver.post(make_sequence(f"shifts {number}", prompt, count=2 * window, window=window, shift=True))
        driver.post(make_sequence(f"plain {number}", prompt, count=10, window=700))
    with driver.running():
        driver.post(*(CancelSequence(f"shifts {number}") for number in cancelled))
        for number, (prompt, _) in enumerate(workload):
            driver.wait_for(f"plain {number}")
            if len(prompt) < window and number not in cancelled:
                driver.wait_for(f"shifts {number}")
    for number, (prompt, _) in enumerate(workload):
        assert driver.text(f"plain {number}") == engine.answer(prompt, 10)


def test_eight_requests_with_one_beginning_that_come_together_compute_it_once() -> None:
    engine = FakeEngine(cells=2000, max_sequences=8, max_rows=16)
    driver = Driver(engine)
    for number in range(8):
        driver.post(make_sequence(str(number), [*SHARED, number, 1, 2], count=3))
    driver.run_to_end(*map(str, range(8)))
    assert computed_rows(engine) == len(SHARED) + 8 * (3 + 2)
    assert sorted(cached(driver, str(number)).live for number in range(8)) == [0] + 7 * [len(SHARED)]
    for number in range(8):
        assert driver.text(str(number)) == engine.answer([*SHARED, number, 1, 2], 3)


def test_equal_prompts_compute_one_token_each() -> None:
    engine = FakeEngine(cells=2000, max_sequences=4)
    driver = Driver(engine)
    for number in range(4):
        driver.post(make_sequence(str(number), SHARED, count=1))
    driver.run_to_end(*"0123")
    assert computed_rows(engine) == len(SHARED) + 3


def test_others_do_not_wait_behind_one_that_waits_for_a_shared_part() -> None:
    engine = FakeEngine(cells=2000, max_sequences=4, max_rows=16)
    driver = Driver(engine)
    driver.post(make_sequence("first", SHARED, count=1))
    driver.post(make_sequence("same", SHARED, count=1))
    driver.post(make_sequence("other", [7] * 10, count=1))
    driver.run_to_end("first", "same", "other")
    assert len(engine.steps[0]) == 2, "the other one starts at once"


def test_nobody_waits_for_one_that_stands_still() -> None:
    engine = FakeEngine(cells=2000, max_sequences=4, max_rows=16)
    driver = Driver(engine)
    driver.post(make_sequence("slow", SHARED, count=1), SetPaused("slow", True))
    driver.post(make_sequence("same", SHARED, count=1))
    with driver.running():
        driver.wait_for("same")
        driver.post(SetPaused("slow", False))
        driver.wait_for("slow")
    assert cached(driver, "slow").total == 0


def test_nobody_waits_for_a_prompt_that_is_scored_but_may_share_it() -> None:
    engine = FakeEngine(cells=2000, max_sequences=4, max_rows=64)
    driver = Driver(engine)
    plain = make_sequence("", SHARED).request
    request = msgspec.structs.replace(plain, echo=True, logprobs=0)
    echo = Echo("", SHARED, 0, engine)
    driver.post(Sequence("scored", request, [*SHARED], window=2000, seed=1, received_ns=0, echo=echo))
    driver.step()
    driver.post(make_sequence("same", [*SHARED, 5], count=3))
    driver.step()
    assert [len(chunk.tokens) for chunk in engine.steps[1]] == [32, 32], "so many rows can be scored in a step"
    while driver.step():
        pass
    assert cached(driver, "same").live == 32
    assert isinstance(driver.events["scored"][-1], Finished)
    assert driver.text("same") == engine.answer([*SHARED, 5], 3)


def test_a_cancelled_request_leaves_its_work_to_the_one_that_waited_for_it() -> None:
    engine = FakeEngine(cells=2000, max_sequences=4, max_rows=16)
    driver = Driver(engine)
    driver.post(make_sequence("first", SHARED, count=1), make_sequence("second", [*SHARED, 5], count=3))
    driver.step()
    driver.post(CancelSequence("first"))
    driver.run_to_end("second")
    assert driver.text("second") == engine.answer([*SHARED, 5], 3)
    assert cached(driver, "second").live == 16


def test_the_next_turn_of_a_conversation_comes_from_memory() -> None:
    engine = FakeEngine(cells=2000)
    driver = Driver(engine)
    driver.post(make_sequence("first", SHARED, count=10, wants_context=True))
    with driver.running():
        driver.wait_for_all("first")
        finished = driver.events["first"][-1]
        assert isinstance(finished, Finished)
        assert finished.context is not None
        turn = [*finished.context, 3, 4, 5]
        driver.post(make_sequence("second", turn, count=5))
        driver.wait_for_all("second")
    assert cached(driver, "second") == CachedTokens(memory=len(SHARED) + 9)
    assert driver.text("second") == engine.answer(turn, 5)


def test_a_prompt_takes_what_it_can_from_the_cells_and_the_rest_from_memory() -> None:
    engine = FakeEngine(cells=2000)
    driver = Driver(engine)
    old = [*SHARED, *([9] * 50)]
    driver.post(make_sequence("old", old, count=1))
    while driver.step():
        pass
    driver.post(make_sequence("live", [*SHARED, *([8] * 50)], count=1000))
    while not driver.text("live"):
        driver.step()
    driver.post(make_sequence("both", [*old, 3], count=4))
    while "both" not in driver.events or not isinstance(driver.events["both"][-1], Finished):
        driver.step()
    assert cached(driver, "both") == CachedTokens(live=100, memory=50)
    assert driver.text("both") == engine.answer([*old, 3], 4)


def test_idle_cells_are_given_back_soon() -> None:
    engine = FakeEngine(cells=2000)
    driver = Driver(engine)
    driver.post(make_sequence("a", SHARED, count=5))
    driver.run_to_end("a")
    assert engine.used == 0
    assert engine.saves == [(0, 104)]


def test_answers_that_end_together_are_told_before_any_is_saved() -> None:
    engine = FakeEngine(cells=2000, max_sequences=12, resting=12)
    driver = Driver(engine)
    names = [f"{number}" for number in range(12)]
    driver.post(*(make_sequence(name, [number] * 20, count=3) for number, name in enumerate(names)))
    while not any(isinstance(driver.events.get(name, [None])[-1], Finished) for name in names):
        assert driver.step()
    assert all(isinstance(driver.events[name][-1], Finished) for name in names)
    assert len(engine.saves) <= 1, "saving goes on between steps"
    while driver.step():
        pass
    assert len(engine.saves) == len(names)


def test_what_rests_in_the_cells_makes_way_for_what_runs() -> None:
    engine = FakeEngine(cells=150)
    driver = Driver(engine, NOTHING_KEPT)
    driver.post(make_sequence("a", SHARED, count=5))
    with driver.running():
        driver.wait_for("a")
        assert engine.used == 104, "without a place to go it stays"
        driver.post(make_sequence("b", [1] * 100, count=5))
        driver.wait_for("b")
    assert driver.text("b") == engine.answer([1] * 100, 5)


def test_a_sequence_that_gave_way_goes_on_where_it_was() -> None:
    engine = FakeEngine(cells=130, max_rows=64)
    driver = Driver(engine)
    prompts = {"a": [1] * 50, "b": [2] * 50}
    for name, prompt in prompts.items():
        driver.post(make_sequence(name, prompt, count=60, window=130))
    driver.run_to_end("a", "b")
    for name, prompt in prompts.items():
        assert driver.text(name) == engine.answer(prompt, 60)
        assert cached(driver, name).total == 0, "its own work is no hit"
    assert engine.restores, "it was brought back"
    assert computed_rows(engine) <= 100 + 120, "and computed nothing twice"


def test_another_scope_shares_nothing() -> None:
    engine = FakeEngine(cells=2000)
    driver = Driver(engine)
    with driver.running():
        driver.post(*(make_sequence(scope, SHARED, count=2, scope=scope) for scope in ("one", "two")))
        driver.wait_for_all("one", "two")
        driver.post(*(make_sequence(f"{scope} later", SHARED, count=2, scope=scope) for scope in ("one", "three")))
        driver.wait_for_all("one later", "three later")
    assert [cached(driver, name).total for name in ("one", "two", "one later", "three later")] == [0, 0, 99, 0]


def test_an_interactive_request_takes_the_place_of_a_background_one_which_goes_on_later() -> None:
    engine = FakeEngine(cells=500, max_sequences=1)
    driver = Driver(engine)
    driver.post(make_sequence("background", SHARED, count=300, is_background=True))
    for _ in range(20):
        driver.step()
    driver.post(make_sequence("question", [5] * 20, count=5))
    driver.run_to_end("question", "background")
    assert [len(step[0].tokens) for step in engine.steps[20:22]] == [16, 4], "the question begins at once"
    assert driver.text("background") == engine.answer(SHARED, 300)
    assert driver.text("question") == engine.answer([5] * 20, 5)
