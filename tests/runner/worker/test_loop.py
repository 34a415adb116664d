"""The engine thread's loop, with an engine that checks its bookkeeping."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from collections.abc import Sequence as ReadOnlySequence
from contextlib import contextmanager
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.chat.types import (
    ChatEvent,
    ChatRequest,
    Failed,
    Finished,
    FinishReason,
    Limits,
    Priority,
    TextDelta,
    TextPrompt,
)
from runner.engine import Chunk
from runner.messages import CacheOptions, Events, Report, Stats
from runner.worker.commands import CancelSequence, LoopCommand, SetPaused, Stop
from runner.worker.loop import Loop
from runner.worker.outbox import TOGETHER_NS
from runner.worker.sequence import Sequence
from runner.worker.window_change import Aside
from tests.fake_engine import FakeEngine

TIMEOUT = 60


def at_once(work: Callable[[], None]) -> None:
    """What is done aside in earnest has an end here before the next step begins."""
    work()


class Driver:
    """Runs a loop in a thread and collects what it says."""

    def __init__(self, engine: FakeEngine, cache: CacheOptions | None = None, aside: Aside = at_once) -> None:
        self.engine = engine
        self.reports: queue.Queue[Report] = queue.Queue()
        self.loop = Loop(engine, self.reports.put, cache=cache, clock=lambda: engine.now_ns, aside=aside)
        self.events: dict[str, list[ChatEvent]] = {}

    def post(self, *commands: LoopCommand) -> None:
        for command in commands:
            self.loop.post(command)

    def run_to_end(self, *names: str) -> None:
        """Run on this thread until the named requests have ended, then stop."""
        with self.running():
            self.wait_for_all(*names)

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self.loop.run)
        thread.start()
        try:
            yield
        finally:
            self.loop.post(Stop())
            thread.join(TIMEOUT)
            assert not thread.is_alive()

    def step(self) -> bool:
        """One turn on this thread, where it matters what comes between two; False when there was nothing to do."""
        self.loop.obey(wait=False)
        has_stepped = self.loop.step()
        while not self.reports.empty():
            self.receive()
        return has_stepped

    def receive(self) -> Report:
        report = self.reports.get(timeout=TIMEOUT)
        if isinstance(report, Events):
            for name, event in report.events:
                self.events.setdefault(name, []).append(event)
        return report

    def wait_for(self, name: str) -> ChatEvent:
        while not isinstance(self.events.get(name, [None])[-1], Finished | Failed):
            self.receive()
        return self.events[name][-1]

    def wait_for_text(self, name: str, characters: int = 1) -> None:
        while len(self.text(name)) < characters:
            self.receive()

    def wait_for_all(self, *names: str) -> None:
        """Until these have ended and nothing of them is left in the cells."""
        for name in names:
            self.wait_for(name)
        self.wait_until_idle()

    def wait_until_idle(self) -> None:
        """Until nothing runs, nothing waits and no cell is in use."""
        while not (isinstance(report := self.receive(), Stats) and is_empty(report)):
            pass

    def text(self, name: str) -> str:
        return "".join(event.text for event in self.events.get(name, []) if isinstance(event, TextDelta))


def is_empty(stats: Stats) -> bool:
    return (stats.running, stats.waiting, stats.cells_used) == (0, 0, 0)


def make_sequence(
    name: str,
    prompt: ReadOnlySequence[int],
    *,
    count: int = 10,
    window: int = 64,
    stop: tuple[str, ...] = (),
    shift: bool = False,
    wants_context: bool = False,
    scope: str = "",
    is_background: bool = False,
) -> Sequence:
    request = ChatRequest(
        TextPrompt(""),
        limits=Limits(num_predict=count, shift=shift),
        stop=stop,
        wants_context=wants_context,
        cache_scope=scope,
        priority=Priority.BACKGROUND if is_background else Priority.INTERACTIVE,
    )
    return Sequence(name, request, list(prompt), window=window, seed=1, received_ns=0)


_workloads = st.lists(
    st.tuples(st.lists(st.integers(0, 27), min_size=1, max_size=30), st.integers(1, 30)), min_size=1, max_size=8
)


@settings(deadline=None, max_examples=60)
@given(_workloads, st.integers(64, 200), st.integers(1, 4), st.integers(4, 40), st.sampled_from([0, 7]))
def test_every_stream_gets_the_text_it_gets_alone(
    workload: list[tuple[list[int], int]], cells: int, max_sequences: int, max_rows: int, ends_every: int
) -> None:
    rows = max(max_rows, max_sequences)
    engine = FakeEngine(cells=cells, max_sequences=max_sequences, max_rows=rows, ends_every=ends_every)
    driver = Driver(engine)
    for number, (prompt, count) in enumerate(workload):
        driver.post(make_sequence(str(number), prompt, count=count))
    driver.run_to_end(*(str(number) for number in range(len(workload))))
    for number, (prompt, count) in enumerate(workload):
        assert driver.text(str(number)) == engine.answer(prompt, count)
    assert engine.cells == {}
    assert all(sampler.is_closed for sampler in engine.samplers)


@settings(deadline=None, max_examples=40)
@given(_workloads, st.sets(st.integers(0, 7)), st.integers(0, 12))
def test_cancelling_some_changes_nothing_for_the_others(
    workload: list[tuple[list[int], int]], cancelled: set[int], after: int
) -> None:
    engine = FakeEngine(cells=80)
    driver = Driver(engine)
    for number, (prompt, count) in enumerate(workload):
        driver.post(make_sequence(str(number), prompt, count=count))
    survivors = [number for number in range(len(workload)) if number not in cancelled]
    with driver.running():
        for _ in range(after):
            if all(isinstance(events[-1], Finished) for events in driver.events.values()) and driver.events:
                break
            driver.receive()
        driver.post(*(CancelSequence(str(number)) for number in cancelled))
        driver.post(make_sequence("last", [1, 2, 3]))
        for number in survivors:
            driver.wait_for(str(number))
        driver.wait_for("last")
        driver.wait_until_idle()
    for number in survivors:
        assert driver.text(str(number)) == engine.answer(*workload[number])
    assert driver.text("last") == engine.answer([1, 2, 3], 10)
    assert engine.cells == {}
    assert all(sampler.is_closed for sampler in engine.samplers)


def test_a_long_prompt_does_not_stall_an_answer_in_progress() -> None:
    engine = FakeEngine(cells=9000, max_rows=512, step_ns=lambda rows, _cells: 5_000_000 + rows * 2_000_000)
    driver = Driver(engine)
    driver.post(make_sequence("answer", [1, 2], count=300, window=9000))
    driver.post(make_sequence("long", [3] * 4000, count=1, window=9000))
    driver.run_to_end("answer", "long")
    beside = [
        time
        for step, time in zip(engine.steps, engine.step_times, strict=True)
        if len(step) == 2 and any(len(chunk.tokens) == 1 for chunk in step)
    ]
    assert len(beside) > 50
    assert max(beside) <= 1.25 * 80_000_000, "no longer than the target and a little"
    assert sum(beside) / len(beside) > 0.6 * 80_000_000, "and the target is made use of"


def test_an_answer_ends_where_the_model_ends_it() -> None:
    engine = FakeEngine(ends_every=5)
    driver = Driver(engine)
    driver.post(make_sequence("a", [5, 5], count=1000))
    driver.run_to_end("a")
    finished = driver.events["a"][-1]
    assert isinstance(finished, Finished)
    assert finished.reason is FinishReason.STOP
    assert finished.usage.completion_tokens == len(driver.text("a")) + 1


def test_an_answer_ends_at_its_token_limit() -> None:
    driver = Driver(FakeEngine())
    driver.post(make_sequence("a", [1], count=7))
    driver.run_to_end("a")
    finished = driver.events["a"][-1]
    assert isinstance(finished, Finished)
    assert finished.reason is FinishReason.LENGTH
    assert len(driver.text("a")) == finished.usage.completion_tokens == 7


def test_a_limit_of_no_tokens_gives_no_text() -> None:
    driver = Driver(FakeEngine())
    driver.post(make_sequence("a", [1], count=0))
    driver.run_to_end("a")
    assert driver.text("a") == ""
    assert isinstance(driver.events["a"][-1], Finished)


def test_an_answer_ends_when_its_window_is_full() -> None:
    driver = Driver(FakeEngine())
    driver.post(make_sequence("a", [1] * 10, count=-1, window=16))
    driver.run_to_end("a")
    finished = driver.events["a"][-1]
    assert isinstance(finished, Finished)
    assert (finished.reason, finished.usage.completion_tokens) == (FinishReason.LENGTH, 6)


def test_an_answer_that_may_shift_goes_on_and_says_so() -> None:
    engine = FakeEngine()
    driver = Driver(engine)
    driver.post(make_sequence("a", [1] * 10, count=40, window=16, shift=True))
    driver.run_to_end("a")
    finished = driver.events["a"][-1]
    assert isinstance(finished, Finished)
    assert len(driver.text("a")) == 40
    assert finished.truncated is not None
    assert finished.truncated.strategy == "shift"


def test_a_stop_string_is_cut_and_told() -> None:
    engine = FakeEngine()
    whole = engine.answer([1, 2, 3], 20)
    driver = Driver(engine)
    driver.post(make_sequence("a", [1, 2, 3], count=20, stop=(whole[8:11],)))
    driver.run_to_end("a")
    finished = driver.events["a"][-1]
    assert isinstance(finished, Finished)
    assert finished.stop_string == whole[8:11]
    assert driver.text("a") == whole[: whole.index(whole[8:11])]


def test_the_tokens_come_back_when_they_are_asked_for() -> None:
    driver = Driver(FakeEngine())
    driver.post(make_sequence("a", [1, 2, 3], count=4, wants_context=True))
    driver.run_to_end("a")
    finished = driver.events["a"][-1]
    assert isinstance(finished, Finished)
    assert finished.context is not None
    assert finished.context[:3] == (1, 2, 3)
    assert len(finished.context) == 7


def test_a_paused_stream_stands_still_and_goes_on() -> None:
    engine = FakeEngine(cells=4000)
    driver = Driver(engine)
    driver.post(make_sequence("slow", [1], count=1000, window=4000), SetPaused("slow", True))
    driver.post(make_sequence("other", [2], count=20))
    with driver.running():
        driver.wait_for("other")
        assert driver.text("slow") == ""
        driver.post(SetPaused("slow", False))
        driver.wait_for("slow")
    assert driver.text("slow") == engine.answer([1], 1000)


def test_cells_that_run_out_are_a_pause_and_not_an_error() -> None:
    engine = FakeEngine(cells=64)
    driver = Driver(engine)
    for name, prompt in (("a", [1] * 20), ("b", [2] * 20)):
        driver.post(make_sequence(name, prompt, count=30))
    driver.run_to_end("a", "b")
    assert driver.text("a") == engine.answer([1] * 20, 30)
    assert driver.text("b") == engine.answer([2] * 20, 30)


def test_cells_that_the_engine_lacks_unexpectedly_are_a_pause_too() -> None:
    engine = FakeEngine(cells=64, hidden_cells=10)
    driver = Driver(engine)
    for name, prompt in (("a", [1] * 20), ("b", [2] * 20)):
        driver.post(make_sequence(name, prompt, count=10))
    driver.run_to_end("a", "b")
    assert driver.text("a") == engine.answer([1] * 20, 10)
    assert driver.text("b") == engine.answer([2] * 20, 10)


def test_a_request_that_no_cells_can_hold_fails_alone() -> None:
    engine = FakeEngine(cells=64, hidden_cells=40)
    driver = Driver(engine)
    driver.post(make_sequence("big", [1] * 30), make_sequence("small", [2], count=5))
    driver.run_to_end("big", "small")
    failed = driver.events["big"][-1]
    assert isinstance(failed, Failed)
    assert failed.code == "insufficient_memory"
    assert driver.text("small") == engine.answer([2], 5)


@pytest.mark.parametrize("poison", [7, 8])
def test_a_request_the_engine_cannot_compute_fails_alone(poison: int) -> None:
    def fails(chunks: ReadOnlySequence[Chunk]) -> bool:
        return any(poison in chunk.tokens and chunk.start == 0 for chunk in chunks)

    engine = FakeEngine(fault=fails)
    driver = Driver(engine)
    driver.post(make_sequence("good", [1, 2]), make_sequence("bad", [poison]), make_sequence("fine", [3]))
    driver.run_to_end("good", "bad", "fine")
    failed = driver.events["bad"][-1]
    assert isinstance(failed, Failed)
    assert driver.text("good") == engine.answer([1, 2], 10)
    assert driver.text("fine") == engine.answer([3], 10)
    assert engine.cells == {}


def test_an_idle_loop_says_that_nothing_runs() -> None:
    driver = Driver(FakeEngine())
    driver.post(make_sequence("a", [1, 2], count=5))
    with driver.running():
        driver.wait_for("a")
        while not (isinstance(report := driver.receive(), Stats) and report.sampled == 5 and is_empty(report)):
            pass
    assert report.steps == 5
    assert report.rows == 6


def test_whoever_has_seen_the_end_of_an_answer_finds_it_counted() -> None:
    driver = Driver(FakeEngine())
    driver.post(make_sequence("a", [1, 2], count=5))
    totals: list[Stats] = []
    with driver.running():
        while not any(isinstance(event, Finished) for event in driver.events.get("a", [])):
            if isinstance(report := driver.receive(), Stats):
                totals.append(report)
    assert totals[-1].sampled == 5
    assert totals[-1].running == 0


@pytest.mark.parametrize(("milliseconds", "tokens_a_frame"), [(2, 12), (6, 4), (10, 2), (30, 1)])
def test_the_events_of_quick_steps_go_out_together_but_the_first_and_the_last_at_once(
    milliseconds: int, tokens_a_frame: int
) -> None:
    engine = FakeEngine(step_ns=lambda _rows, _cells: milliseconds * 1_000_000)
    driver = Driver(engine)
    frames: list[tuple[int, int]] = []

    def note(report: Report) -> None:
        if isinstance(report, Events):
            frames.append((engine.now_ns, sum(isinstance(event, TextDelta) for _, event in report.events)))
        driver.reports.put(report)

    driver.loop = Loop(engine, note, clock=lambda: engine.now_ns)
    driver.post(make_sequence("one", [1, 2, 3], count=56))
    driver.run_to_end("one")
    assert frames[0][1] == 1
    assert sum(count for _, count in frames) == 56
    assert max(count for _, count in frames) <= tokens_a_frame
    assert len(frames) <= 56 / tokens_a_frame + 6
    gaps = [later - earlier for (earlier, _), (later, _) in pairwise(frames)]
    assert max(gaps) <= max(TOGETHER_NS, milliseconds * 1_000_000)
    assert frames[-1][0] == engine.now_ns
