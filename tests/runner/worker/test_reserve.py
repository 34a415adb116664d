"""Contexts beside the main one wait for their memory, alone, and are refused alone."""

from __future__ import annotations

import pytest

from runner.chat.types import Failed, Finished
from runner.messages import Beside, Report, RoomGiven, RoomRefused, RoomWanted
from runner.tasks import Encoded
from runner.worker.encoding import EncodingJob
from runner.worker.reserve import Answer, Reserve
from tests.fake_engine import FakeEngine
from tests.runner.worker.test_loop import Driver, make_sequence
from tests.runner.worker.test_solo import PROMPT, make_solo


def test_each_wish_is_asked_once_and_what_is_given_stays() -> None:
    sent: list[Report] = []
    reserve = Reserve(sent.append)
    assert reserve.ask(Beside.VECTORS, 0) is Answer.GIVEN
    assert [reserve.ask(Beside.VECTORS, 100) for _ in range(3)] == [Answer.ASKED] * 3
    reserve.take(RoomGiven(Beside.VECTORS, 100))
    assert reserve.ask(Beside.VECTORS, 100) is Answer.GIVEN
    assert reserve.ask(Beside.VECTORS, 60) is Answer.GIVEN
    assert reserve.ask(Beside.VECTORS, 70) is Answer.ASKED, "what was given back is asked for again"
    reserve.take(RoomGiven(Beside.VECTORS, 60))
    assert reserve.is_asked(Beside.VECTORS), "an answer to something else"
    reserve.take(RoomRefused(Beside.VECTORS, 70, 5))
    assert reserve.ask(Beside.VECTORS, 65) is Answer.ASKED, "less may be there"
    assert [report.size for report in sent if isinstance(report, RoomWanted)] == [100, 60, 70, 65]


def test_a_refusal_is_told_to_one_and_asked_again_for_the_next() -> None:
    reserve = Reserve(lambda _: None)
    reserve.ask(Beside.DETERMINISTIC, 2_000_000)
    reserve.take(RoomRefused(Beside.DETERMINISTIC, 2_000_000, 1_000_000))
    assert reserve.ask(Beside.DETERMINISTIC, 2_000_000) is Answer.REFUSED
    failed = reserve.refusal(Beside.DETERMINISTIC, "this")
    assert (failed.code, failed.facts) == ("insufficient_memory", {"needed": 2_000_000, "available": 1_000_000})
    assert "no memory for this" in failed.message
    assert reserve.ask(Beside.DETERMINISTIC, 2_000_000) is Answer.ASKED


@pytest.mark.parametrize("is_given", [True, False])
def test_only_who_needs_the_memory_waits_for_it(is_given: bool) -> None:
    engine = FakeEngine(cells=3000)
    engine.beside_bytes = 10
    driver = Driver(engine)
    driver.post(make_solo("solo", PROMPT, count=5), EncodingJob("vectors", [[1, 2, 3]]))
    with driver.running():
        wanted: dict[Beside, int] = {}
        while len(wanted) < 2:
            if isinstance(report := driver.receive(), RoomWanted):
                wanted[report.purpose] = report.size
        assert wanted == {Beside.DETERMINISTIC: 1280, Beside.VECTORS: 30}
        driver.post(make_sequence("other", PROMPT[:9], count=5))
        assert isinstance(driver.wait_for("other"), Finished)
        assert not engine.solo_chunks and not engine.encoding_steps
        while not {"solo", "vectors"} <= {name for name, events in driver.events.items() if is_last(events[-1])}:
            for purpose, size in wanted.items():
                driver.post(RoomGiven(purpose, size) if is_given else RoomRefused(purpose, size, 7))
            wanted = {}
            if isinstance(report := driver.receive(), RoomWanted):
                wanted[report.purpose] = report.size
    for name in ("solo", "vectors"):
        assert isinstance(driver.events[name][-1], Finished | Encoded if is_given else Failed)


def is_last(event: object) -> bool:
    return isinstance(event, Finished | Encoded | Failed)
