"""Deterministic requests: steps of their own, the same whatever else runs."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from runner.chat.types import Failed, Finished
from runner.errors import InsufficientMemory, Unsupported
from runner.worker.commands import CancelSequence, SetPaused
from runner.worker.prompt import prepare_prompt
from runner.worker.sequence import Sequence
from tests.fake_engine import FakeEngine
from tests.runner.worker.test_loop import Driver, make_sequence

PROMPT = [number % 26 for number in range(300)]


def make_solo(name: str, prompt: list[int], **options: Any) -> Sequence:
    plain = make_sequence(name, prompt, **{"window": 1000, **options})
    request = msgspec.structs.replace(plain.request, deterministic=True)
    return Sequence(name, request, list(prompt), window=plain.window, seed=1, received_ns=0)


def run(*others: Sequence) -> tuple[FakeEngine, Driver]:
    engine = FakeEngine(cells=3000)
    driver = Driver(engine)
    driver.post(*others, make_solo("solo", PROMPT, count=20))
    driver.run_to_end("solo", *(other.request_id for other in others))
    return engine, driver


def test_its_chunks_are_the_same_whatever_else_runs() -> None:
    alone, driver = run()
    assert driver.text("solo") == alone.answer(PROMPT, 20)
    assert alone.solo_chunks == [128, 128, 44] + [1] * 19
    beside, driver = run(*(make_sequence(str(number), PROMPT[:200], count=40, window=1000) for number in range(3)))
    assert beside.solo_chunks == alone.solo_chunks
    assert driver.text("solo") == alone.answer(PROMPT, 20)
    finished = driver.events["solo"][-1]
    assert isinstance(finished, Finished)
    assert finished.usage.cached_tokens == 0


def test_the_others_go_on_between_its_steps() -> None:
    engine = FakeEngine(cells=3000)
    driver = Driver(engine)
    driver.post(make_solo("solo", PROMPT, count=20), make_sequence("other", [1, 2], count=20))
    for _ in range(10):
        driver.step()
    assert len(engine.steps) == len(engine.solo_chunks) == 10


def test_several_take_turns_whole_request_by_whole_request() -> None:
    engine = FakeEngine(cells=3000)
    driver = Driver(engine)
    for name, token in (("a", 1), ("b", 2), ("c", 3)):
        driver.post(make_solo(name, [token] * 10, count=10))
    driver.post(CancelSequence("b"))
    driver.run_to_end("a", "c")
    assert driver.text("a") == engine.answer([1] * 10, 10)
    assert driver.text("c") == engine.answer([3] * 10, 10)
    assert all(sampler.is_closed for sampler in engine.samplers)


def test_it_asks_for_as_much_room_as_it_can_come_to_need() -> None:
    engine, _ = run()
    assert engine.solo_window == 321


def test_a_paused_one_stands_still() -> None:
    engine = FakeEngine(cells=3000)
    driver = Driver(engine)
    driver.post(make_solo("solo", [1, 2], count=500), SetPaused("solo", True), make_sequence("other", [3], count=9))
    with driver.running():
        driver.wait_for("other")
        assert driver.text("solo") == ""
        driver.post(SetPaused("solo", False))
        driver.wait_for("solo")
    assert driver.text("solo") == engine.answer([1, 2], 500)


def test_without_memory_for_it_the_request_fails_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FakeEngine(cells=3000)

    def refuse(window: int) -> None:
        raise InsufficientMemory("no memory", context_length=window)

    monkeypatch.setattr(engine, "begin_solo", refuse)
    driver = Driver(engine)
    driver.post(make_solo("solo", [1, 2], count=5), make_sequence("other", [3], count=9))
    driver.run_to_end("solo", "other")
    failed = driver.events["solo"][-1]
    assert isinstance(failed, Failed)
    assert failed.code == "insufficient_memory"
    assert driver.text("other") == engine.answer([3], 9)


def test_a_window_that_shifts_is_refused() -> None:
    request = make_solo("solo", [1], shift=True).request
    with pytest.raises(Unsupported, match="deterministic"):
        prepare_prompt(request, FakeEngine())
