"""Keeping whole states, with an engine whose memory cannot be cut."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from runner.chat.types import CachedTokens, Finished
from runner.loaded_model import MemoryKind
from runner.messages import CacheOptions
from runner.worker.state_cache import StateCache
from tests.fake_engine import FakeEngine
from tests.runner.worker.test_cell_keeper import SHARED, cached, computed_rows, make_sequence
from tests.runner.worker.test_loop import Driver

TIMEOUT = 60

_blocks = st.lists(st.sampled_from([[1] * 40, [2] * 40, list(range(20)) * 2, [3], [4, 5]]), min_size=1, max_size=6)
_prompts = _blocks.map(lambda blocks: [token for block in blocks for token in block])
_workloads = st.lists(st.tuples(_prompts, st.integers(1, 30)), min_size=1, max_size=10)


def make_engine(cells: int = 2000, max_sequences: int = 4, max_rows: int = 16, ends_every: int = 0) -> FakeEngine:
    return FakeEngine(
        cells=cells,
        max_sequences=max_sequences,
        max_rows=max_rows,
        ends_every=ends_every,
        memory=MemoryKind.STATES,
    )


@settings(deadline=None, max_examples=100)
@given(
    _workloads,
    st.integers(300, 700),
    st.integers(1, 5),
    st.integers(8, 64),
    st.sampled_from([0, 1500, 1 << 20]),
    st.sampled_from([0, 7]),
)
def test_keeping_states_changes_no_text(
    workload: list[tuple[list[int], int]],
    cells: int,
    max_sequences: int,
    max_rows: int,
    memory_bytes: int,
    ends_every: int,
) -> None:
    engine = make_engine(cells, max_sequences, max_rows, ends_every)
    driver = Driver(engine, CacheOptions(memory_bytes=memory_bytes))
    with driver.running():
        for number, (prompt, count) in enumerate(workload):
            driver.post(make_sequence(str(number), prompt, count=count, window=cells))
            if number % 3 == 2:
                driver.wait_for(str(number - 1))
        driver.wait_for_all(*map(str, range(len(workload))))
    for number, (prompt, count) in enumerate(workload):
        assert driver.text(str(number)) == engine.answer(prompt, count)
    assert engine.cells == {}


def test_the_next_turn_goes_on_from_the_end_of_the_last() -> None:
    engine = make_engine()
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


def test_the_same_prompt_again_computes_one_token_of_it() -> None:
    engine = make_engine()
    driver = Driver(engine)
    driver.post(make_sequence("first", SHARED, count=10))
    with driver.running():
        driver.wait_for_all("first")
        driver.post(make_sequence("again", SHARED, count=10))
        driver.wait_for_all("again")
    assert cached(driver, "again") == CachedTokens(memory=len(SHARED) - 1)
    assert driver.text("again") == driver.text("first")


def test_requests_that_come_together_compute_their_common_beginning_once() -> None:
    engine = make_engine(max_sequences=8)
    driver = Driver(engine)
    for number in range(8):
        driver.post(make_sequence(str(number), [*SHARED, number, 1, 2], count=3))
    driver.run_to_end(*map(str, range(8)))
    assert computed_rows(engine) == len(SHARED) + 8 * (3 + 2)
    for number in range(8):
        assert driver.text(str(number)) == engine.answer([*SHARED, number, 1, 2], 3)


def test_prompts_that_come_one_after_another_get_a_state_where_they_part() -> None:
    engine = make_engine()
    driver = Driver(engine)
    with driver.running():
        for name in "abc":
            driver.post(make_sequence(name, [*SHARED, ord(name) % 26, 7, 7], count=3))
            driver.wait_for_all(name)
    assert [cached(driver, name).memory for name in "abc"] == [0, 0, len(SHARED)]


def test_a_sequence_that_gave_way_goes_on_where_it_was() -> None:
    engine = make_engine(cells=130, max_rows=64)
    driver = Driver(engine)
    prompts = {"a": [1] * 50, "b": [2] * 50}
    for name, prompt in prompts.items():
        driver.post(make_sequence(name, prompt, count=60, window=130))
    driver.run_to_end("a", "b")
    for name, prompt in prompts.items():
        assert driver.text(name) == engine.answer(prompt, 60)
    assert engine.restores
    assert computed_rows(engine) <= 100 + 120


def test_states_outlive_the_worker(tmp_path: Path) -> None:
    options = CacheOptions(memory_bytes=1 << 20, disk_bytes=1 << 24, directory=str(tmp_path), weights_digest="sha256:1")
    told = []
    for _ in range(2):
        engine = make_engine()
        driver = Driver(engine, options)
        driver.post(make_sequence("a", SHARED, count=10))
        driver.run_to_end("a")
        driver.loop.save(TIMEOUT)
        assert driver.text("a") == engine.answer(SHARED, 10)
        told.append(cached(driver, "a"))
    assert told == [CachedTokens(), CachedTokens(disk=99)]


def test_a_small_budget_is_kept_and_the_oldest_in_proportion_goes() -> None:
    cache = StateCache(100)
    for number in range(3):
        cache.use(None)
        assert cache.add("", [number] * 40, memoryview(bytes(40)))
        assert cache.memory_used <= 100
    assert cache.find("", [0] * 40, 40) is None
    assert cache.find("", [2] * 50, 50) is not None
    assert cache.find("other", [2] * 50, 50) is None
    assert cache.add("", [9] * 40, memoryview(bytes(200))) is None
    assert len(cache) == 2


def test_only_a_state_that_the_prompt_continues_is_found() -> None:
    cache = StateCache(1000)
    for length in (10, 20, 30):
        cache.add("", [1] * length, memoryview(bytes(length)))
    found = cache.find("", [*[1] * 25, 2], 26)
    assert found is not None
    assert found.end == 20
    assert cache.branches("", [*[1] * 25, 2]) == {10, 20, 25}
