"""Windows that grow in the middle of everything, with an engine that checks every cell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.chat.types import ChatRequest, Failed, Finished, FinishReason, Limits, TextPrompt
from runner.errors import InsufficientMemory
from runner.loaded_model import MemoryKind
from runner.messages import CacheOptions, Generate, Grow, GrowFailed, Grown, KeepWindow, Report, WindowWanted
from runner.worker.control import Control
from runner.worker.ledger import CellLedger
from runner.worker.loop import Loop
from runner.worker.window_change import Aside
from tests.fake_engine import FakeEngine
from tests.runner.worker.test_loop import Driver, at_once, make_sequence


class Daemon(Driver):
    """Answers what the worker asks, as `grants` says: the window it may have, or None."""

    def __init__(
        self,
        engine: FakeEngine,
        grants: Callable[[int], int | None],
        cache: CacheOptions | None = None,
        aside: Aside = at_once,
    ) -> None:
        super().__init__(engine, cache, aside)
        self.grants = grants
        self.wanted: list[int] = []

    def receive(self) -> Report:
        report = super().receive()
        if isinstance(report, WindowWanted):
            self.wanted.append(report.cells)
            window = self.grants(report.cells)
            self.post(KeepWindow(self.engine.info.context_length) if window is None else Grow(window))
        return report


_blocks = st.lists(st.sampled_from([[1] * 20, [2] * 20, list(range(20)), [3], [4, 5]]), min_size=1, max_size=6)
_prompts = _blocks.map(lambda blocks: [token for block in blocks for token in block])
_workloads = st.lists(st.tuples(_prompts, st.integers(1, 60)), min_size=1, max_size=8)


@settings(deadline=None, max_examples=60)
@given(
    _workloads,
    st.lists(st.integers(1, 120), max_size=6),
    st.integers(1, 4),
    st.integers(4, 40),
    st.sampled_from([0, 300, 1 << 20]),
    st.sampled_from([MemoryKind.CELLS, MemoryKind.STATES]),
    st.booleans(),
)
def test_growing_at_any_step_changes_no_text(
    workload: list[tuple[list[int], int]],
    growths: list[int],
    max_sequences: int,
    max_rows: int,
    memory_bytes: int,
    kind: MemoryKind,
    forgets: bool,
) -> None:
    cells = 200
    engine = FakeEngine(
        cells=cells, longest=4000, max_sequences=max_sequences, max_rows=max(max_rows, max_sequences),
        memory=kind, forgets_when_growing=forgets,
    )  # fmt: skip
    due = sorted(set(growths))
    step = engine.step

    def counted(chunks: Any) -> list[int]:
        # Posted while a step is computed, a growth comes between this step and the next one.
        if due and len(engine.steps) >= due[0]:
            del due[0]
            driver.post(Grow(engine.info.context_length + 256))
        return step(chunks)

    engine.step = counted  # type: ignore[method-assign]
    driver = Daemon(engine, lambda cells: -(-cells // 256) * 256, CacheOptions(memory_bytes=memory_bytes))
    for number, (prompt, count) in enumerate(workload):
        driver.post(make_sequence(str(number), prompt, count=count, window=4000))
    with driver.running():
        for number in range(len(workload)):
            driver.wait_for(str(number))
    for number, (prompt, count) in enumerate(workload):
        assert driver.text(str(number)) == engine.answer(prompt, count)


@settings(deadline=None, max_examples=40)
@given(_workloads, st.integers(30, 90), st.sampled_from([0, 1 << 20]))
def test_growing_beside_windows_that_shift_changes_no_other_text(
    workload: list[tuple[list[int], int]], window: int, memory_bytes: int
) -> None:
    engine = FakeEngine(cells=256, longest=4000, max_sequences=4)
    driver = Daemon(engine, lambda cells: -(-cells // 256) * 256, CacheOptions(memory_bytes=memory_bytes))
    for number, (prompt, _) in enumerate(workload):
        if len(prompt) < window:
            driver.post(make_sequence(f"shifts {number}", prompt, count=2 * window, window=window, shift=True))
        driver.post(make_sequence(f"plain {number}", prompt, count=60, window=4000))
    with driver.running():
        for number, (prompt, _) in enumerate(workload):
            driver.wait_for(f"plain {number}")
            if len(prompt) < window:
                driver.wait_for(f"shifts {number}")
    for number, (prompt, _) in enumerate(workload):
        assert driver.text(f"plain {number}") == engine.answer(prompt, 60)


def test_an_answer_outgrows_the_window_and_goes_on() -> None:
    engine = FakeEngine(cells=64, longest=1000)
    driver = Daemon(engine, lambda cells: 2 * engine.info.context_length)
    driver.post(make_sequence("a", [1, 2, 3], count=300, window=1000))
    driver.run_to_end("a")
    assert driver.text("a") == engine.answer([1, 2, 3], 300)
    assert engine.growths == [(64, 128), (128, 256), (256, 512)]
    assert sum(len(chunk.tokens) for step in engine.steps for chunk in step) == 302, "nothing is computed twice"


def test_an_answer_goes_on_while_a_larger_window_is_made_for_it() -> None:
    engine = FakeEngine(cells=640, longest=4000)
    work: list[Callable[[], None]] = []
    driver = Daemon(engine, lambda cells: 1280, aside=work.append)
    driver.post(make_sequence("a", [1, 2, 3], count=900, window=4000))
    while not work:
        driver.step()
    asked = len(engine.steps)
    assert driver.wanted == [641]
    while driver.step():
        pass
    assert 640 - 10 <= asked < len(engine.steps) == 640 - 2, "to the last cell of the window that there was"
    work.pop()()
    while "a" not in driver.events or not isinstance(driver.events["a"][-1], Finished):
        driver.step()
    assert driver.text("a") == engine.answer([1, 2, 3], 900)
    assert engine.growths == [(640, 1280)]


def test_an_answer_that_will_end_in_time_asks_for_no_larger_window() -> None:
    engine = FakeEngine(cells=640, longest=4000)
    driver = Daemon(engine, lambda cells: 1280)
    driver.post(make_sequence("a", [1, 2, 3], count=636, window=4000))
    driver.run_to_end("a")
    assert driver.text("a") == engine.answer([1, 2, 3], 636)
    assert driver.wanted == []


def test_an_answer_ends_where_no_larger_window_comes() -> None:
    engine = FakeEngine(cells=64, longest=1000)
    driver = Daemon(engine, lambda cells: None)
    driver.post(make_sequence("a", [1, 2, 3], count=300, window=1000))
    driver.run_to_end("a")
    ended = driver.events["a"][-1]
    assert isinstance(ended, Finished)
    assert ended.reason is FinishReason.LENGTH
    assert driver.text("a") == engine.answer([1, 2, 3], 62)
    assert driver.wanted == [65], "asked once"


def test_an_answer_that_may_shift_does_so_where_no_larger_window_comes() -> None:
    engine = FakeEngine(cells=64, longest=1000)
    driver = Daemon(engine, lambda cells: None)
    driver.post(make_sequence("a", [1, 2, 3], count=100, window=1000, shift=True))
    driver.run_to_end("a")
    ended = driver.events["a"][-1]
    assert isinstance(ended, Finished)
    assert ended.usage.completion_tokens == 100
    assert ended.truncated is not None
    assert driver.text("a")[:62] == engine.answer([1, 2, 3], 62)


def test_many_requests_get_a_larger_window_rather_than_wait_for_each_other() -> None:
    engine = FakeEngine(cells=64, longest=1000, max_sequences=4)
    driver = Daemon(engine, lambda cells: 2 * engine.info.context_length)
    for name in "abcd":
        driver.post(make_sequence(name, [ord(name) % 20] * 40, count=30, window=1000))
    driver.run_to_end(*"abcd")
    assert max(len(step) for step in engine.steps) > 1, "64 cells hold one of them, and not to its end"
    for name in "abcd":
        assert driver.text(name) == engine.answer([ord(name) % 20] * 40, 30)


def test_without_memory_for_a_larger_window_one_gives_way() -> None:
    engine = FakeEngine(cells=64, longest=1000, max_sequences=2)
    driver = Daemon(engine, lambda cells: None)
    for name in "ab":
        driver.post(make_sequence(name, [ord(name) % 20] * 20, count=30, window=1000))
    driver.run_to_end(*"ab")
    for name in "ab":
        assert driver.text(name) == engine.answer([ord(name) % 20] * 20, 30)
    assert engine.growths == []


def test_an_engine_without_memory_leaves_everything_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(size: int) -> None:
        raise InsufficientMemory("no memory", context_length=size)

    engine = FakeEngine(cells=64, longest=1000)
    monkeypatch.setattr(engine, "make_window", refuse)
    driver = Daemon(engine, lambda cells: 128)
    reports: list[Report] = []
    put = driver.reports.put

    def note(report: Report) -> None:
        reports.append(report)
        put(report)

    driver.loop = Loop(engine, note, clock=lambda: engine.now_ns, aside=at_once)
    driver.post(make_sequence("a", [1, 2, 3], count=300, window=1000))
    driver.run_to_end("a")
    assert [type(report) for report in reports if isinstance(report, Grown | GrowFailed)] == [GrowFailed]
    assert driver.text("a") == engine.answer([1, 2, 3], 62)


# --- prompts that need a larger window ------------------------------------------------------------


def ask(engine: FakeEngine, request: ChatRequest, grants: Callable[[int], int | None]) -> Daemon:
    """What comes of one request through the control thread."""
    driver = Daemon(engine, grants)
    driver.loop = Loop(engine, driver.reports.put, largest_context=500, clock=lambda: engine.now_ns, aside=at_once)
    control = Control(engine, driver.loop.post, driver.reports.put, lambda: driver.loop.largest_context)
    with driver.running():
        control.handle(Generate("a", request))
        driver.wait_for("a")
    return driver


def test_a_prompt_waits_for_the_window_it_needs() -> None:
    engine = FakeEngine(cells=64, longest=1000)
    request = ChatRequest(TextPrompt("abc" * 100), limits=Limits(num_predict=5))
    driver = ask(engine, request, lambda cells: 512)
    assert driver.wanted == [301]
    assert driver.text("a") == engine.answer(engine.tokenize("abc" * 100, add_special=True, parse_special=True), 5)


def test_a_prompt_that_memory_does_not_allow_is_refused_with_all_three_numbers() -> None:
    engine = FakeEngine(cells=64, longest=1000)
    driver = ask(engine, ChatRequest(TextPrompt("abc" * 100)), lambda cells: None)
    failed = driver.events["a"][-1]
    assert isinstance(failed, Failed)
    assert failed.code == "context_length_exceeded"
    assert failed.facts == {"prompt_tokens": 300, "context_length": 64, "largest_context_length": 64}


def test_a_prompt_that_no_window_holds_is_refused_without_asking() -> None:
    engine = FakeEngine(cells=64, longest=1000)
    driver = ask(engine, ChatRequest(TextPrompt("abc" * 400)), lambda cells: 512)
    failed = driver.events["a"][-1]
    assert isinstance(failed, Failed)
    assert failed.facts == {"prompt_tokens": 1200, "context_length": 1000, "largest_context_length": 500}
    assert driver.wanted == []


def test_num_ctx_limits_one_request_and_grows_nothing() -> None:
    engine = FakeEngine(cells=64, longest=1000)
    driver = ask(engine, ChatRequest(TextPrompt("abc" * 20), limits=Limits(num_ctx=32)), lambda cells: 512)
    failed = driver.events["a"][-1]
    assert isinstance(failed, Failed)
    assert (failed.facts["prompt_tokens"], failed.facts["context_length"]) == (60, 32)
    assert driver.wanted == []


def test_a_prompt_is_shortened_only_when_the_window_cannot_grow_for_it() -> None:
    request = ChatRequest(TextPrompt("abc" * 100), limits=Limits(num_predict=5, truncate=True))
    grown, refused = FakeEngine(cells=64, longest=1000), FakeEngine(cells=64, longest=1000)
    whole = ask(grown, request, lambda cells: 512).events["a"][-1]
    shortened = ask(refused, request, lambda cells: None).events["a"][-1]
    assert isinstance(whole, Finished)
    assert isinstance(shortened, Finished)
    assert (whole.truncated, whole.usage.prompt_tokens) == (None, 300)
    assert shortened.truncated is not None
    assert shortened.usage.prompt_tokens == 59


# --- the order in which sequences move ------------------------------------------------------------


def test_what_was_shared_is_shared_after_the_move() -> None:
    ledger = CellLedger()
    ledger.grow(0, 100)
    ledger.copy(0, 1, 60)
    ledger.grow(1, 10)
    ledger.copy(1, 2, 65)
    ledger.copy(0, 9, 100)
    moves = ledger.moves()
    assert [(move.sequence_id, move.donor, move.shared, move.length) for move in moves] == [
        (0, None, 0, 100), (1, 0, 60, 70), (2, 1, 65, 65), (9, 0, 100, 100),
    ]  # fmt: skip
    assert sum(move.length - move.shared for move in moves) == ledger.used


def test_a_sequence_that_holds_nothing_does_not_move() -> None:
    ledger = CellLedger()
    ledger.grow(0, 0)
    assert ledger.moves() == []
