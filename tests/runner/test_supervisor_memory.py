"""Memory plans, and loading under pressure."""

from __future__ import annotations

import asyncio
import dataclasses
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.chat.types import Finished
from runner.draft_model import DraftFiles
from runner.errors import InsufficientMemory, RunnerError
from runner.supervisor.memory import (
    Gpus,
    Holding,
    MemoryPlan,
    Room,
    ThisMachine,
    free_room,
    gigabytes,
    learn_gpus,
    plan_memory,
    shortage,
)
from runner.supervisor.types import DraftWish, LoadWishes, MemoryFacts, ModelState
from tests.runner.supervisor_fixtures import GB, FakeMachine, house, wishing

KB = 1000


def facts(weights: int = 4 * GB, kv: int = 100 * KB, training: int = 131_072) -> MemoryFacts:
    return MemoryFacts(weights, kv, training)


def test_the_plan_is_weights_cache_and_room_to_compute() -> None:
    plan = plan_memory(facts(), LoadWishes(num_ctx=1000), Room(64 * GB, 0))
    assert (plan.weights, plan.kv, plan.context_length) == (4 * GB, GB // 10, 1000)
    assert plan.needed == plan.weights + plan.kv + plan.buffers
    assert plan.buffers > 0
    assert plan_memory(dataclasses.replace(facts(), buffers=7), LoadWishes(), Room(64 * GB, 0)).buffers == 7


def test_a_draft_model_is_planned_with_its_weights_and_its_cache() -> None:
    draft = DraftWish(DraftFiles("small", "sha256:1", ("small.gguf",)), GB, 10 * KB)
    plain = plan_memory(facts(), LoadWishes(num_ctx=1000), Room(64 * GB, 0))
    plan = plan_memory(facts(), LoadWishes(num_ctx=1000, draft=draft), Room(64 * GB, 0))
    assert (plan.weights - plain.weights, plan.kv - plain.kv) == (GB, 10 * KB * 1000)
    assert plan.kv_per_token == 110 * KB, "its cache grows with the window"
    assert plan.needed > plain.needed + GB


@pytest.mark.parametrize(
    ("model", "wish", "room", "window", "longest"),
    [
        (facts(), None, Room(64 * GB, 0), 4096, 131_072),
        (facts(training=0), None, Room(64 * GB, 0), 4096, 32_768),
        (facts(training=1024), None, Room(64 * GB, 0), 1024, 1024),
        (facts(), None, Room(4_700_000_000, 0), 3072, 131_072),  # what is left beside the weights, in whole steps
        (facts(), None, Room(1 * GB, 0), 2048, 131_072),
        (facts(training=1024), None, Room(1 * GB, 0), 1024, 1024),
        (facts(kv=0), None, Room(1 * GB, 0), 4096, 131_072),
        (facts(), None, Room(1 * GB, 6 * GB), 4096, 131_072),  # all on the GPU
        (facts(), None, Room(64 * GB, 2 * GB), 4096, 131_072),  # not on the GPU
        (facts(), None, Room(64 * GB, None), 4096, 131_072),
        (facts(), 1000, Room(0, 0), 1000, 131_072),  # kept even when it does not fit
        (facts(), 100_000, Room(0, 0), 4096, 131_072),  # and the rest comes when it is needed
        (facts(training=0), 100_000, Room(0, 0), 4096, 100_000),
    ],
)
def test_a_model_is_loaded_with_a_small_window_that_grows(
    model: MemoryFacts, wish: int | None, room: Room, window: int, longest: int
) -> None:
    plan = plan_memory(model, LoadWishes(num_ctx=wish), room)
    assert (plan.context_length, plan.longest) == (window, longest)


@given(
    kv=st.integers(0, 10**6),
    training=st.integers(1, 200_000),
    ram=st.integers(0, 10**11),
    weights=st.integers(0, 10**11),
)
def test_a_first_window_stays_within_its_bounds(kv: int, training: int, ram: int, weights: int) -> None:
    plan = plan_memory(MemoryFacts(weights, kv, training), LoadWishes(), Room(ram, 0))
    assert min(training, 2048) <= plan.context_length <= min(training, 4096)
    assert plan.context_length == min(training, 2048) or plan.needed <= ram or not kv


def test_what_was_promised_is_not_free_although_the_system_says_so() -> None:
    machine = FakeMachine(memory=10 * GB)
    assert free_room(machine, Gpus(), []) == Room(10 * GB, 0)
    assert free_room(machine, Gpus(), [Holding(4 * GB, 0)]) == Room(6 * GB, 0)
    assert free_room(machine, Gpus(), [Holding(40 * GB, 0)]) == Room(0, 0)


def test_gpus_are_unknown_until_a_worker_told_of_them() -> None:
    machine = FakeMachine(memory=10 * GB, has_gpu=True)
    assert free_room(machine, Gpus(), []).vram is None
    known = Gpus(known=True, memory=10 * GB)
    assert free_room(machine, known, [Holding(0, 4 * GB)]) == Room(10 * GB, 5_500_000_000)


@dataclass
class ListedDevice:
    kind: str
    memory_total: int


def test_only_memory_of_their_own_counts_for_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    devices = [ListedDevice("cpu", 99), ListedDevice("igpu", 50), ListedDevice("gpu", 7), ListedDevice("gpu", 8)]
    monkeypatch.setattr("sys.platform", "linux")
    assert learn_gpus(devices) == Gpus(known=True, memory=15)
    monkeypatch.setattr("sys.platform", "darwin")
    assert learn_gpus(devices) == Gpus(known=True, memory=0)


def test_a_shortage_is_told_with_its_numbers_and_three_ways_out() -> None:
    plan = MemoryPlan(4 * GB, 10 * GB, 384_217_728, 100_000, 100 * KB)
    error = shortage("big:latest", facts(), plan, Room(8 * GB, 0))
    assert error.facts["needed"] == plan.needed
    assert (error.facts["available"], error.facts["weights"], error.facts["kv"]) == (8 * GB, 4 * GB, 10 * GB)
    assert "big:latest needs 14.4 GB of memory (4.0 GB of weights, 10.0 GB for a window of 100000" in error.message
    assert "num_ctx 36096 would fit" in error.message
    assert "close programs" in error.message
    assert "smaller quantization" in error.message
    hopeless = shortage("big:latest", facts(), plan, Room(1 * GB, 0))
    assert "use a smaller model" in hopeless.message


def test_sizes_read_well() -> None:
    assert (gigabytes(98_000_000), gigabytes(7_100_000_000)) == ("98 MB", "7.1 GB")


def test_this_machine_has_memory() -> None:
    machine = ThisMachine()
    assert 0 < machine.available() <= machine.total()
    assert machine.free_swap() >= 0


async def test_the_least_recently_used_idle_model_makes_room(tmp_path: Path) -> None:
    async with house(tmp_path, FakeMachine(memory=10 * GB)) as here:
        first, second, third = (here.model(name, weights=4 * GB, size=4 * GB) for name in "abc")
        await here.say(first)
        await here.say(second)
        await here.say(first)
        await here.say(third)
        assert {status.spec.name for status in here.supervisor.status()} == {"a:latest", "c:latest"}
        assert len(here.worker_pids()) == 2


async def test_a_model_that_answers_is_waited_for_and_not_evicted(tmp_path: Path) -> None:
    async with house(tmp_path, FakeMachine(memory=6 * GB)) as here:
        first, second = here.model("a", weights=4 * GB, size=4 * GB), here.model("b", weights=4 * GB, size=4 * GB)
        busy = await here.lease(first)
        waiting = asyncio.create_task(here.say(second))
        await asyncio.sleep(0.05)
        assert here.journal("b") == []
        newcomer = asyncio.create_task(here.say(first))
        await asyncio.sleep(0.05)
        assert not newcomer.done(), "it came after the one who waits for this model's place"
        busy.release()
        assert isinstance((await waiting)[-1], Finished)
        assert isinstance((await newcomer)[-1], Finished)
        assert [status.spec.name for status in here.supervisor.status()] == ["a:latest"]


async def test_who_waits_for_a_place_and_leaves_no_longer_holds_others_back(tmp_path: Path) -> None:
    async with house(tmp_path, FakeMachine(memory=6 * GB)) as here:
        first, second = here.model("a", weights=4 * GB, size=4 * GB), here.model("b", weights=4 * GB, size=4 * GB)
        busy = await here.lease(first)
        waiting = asyncio.create_task(here.lease(second))
        await asyncio.sleep(0)
        newcomer = asyncio.create_task(here.say(first))
        await asyncio.sleep(0.05)
        waiting.cancel()
        assert isinstance((await newcomer)[-1], Finished)
        busy.release()


async def test_a_model_larger_than_the_machine_is_refused_and_nobody_else_goes(tmp_path: Path) -> None:
    async with house(tmp_path, FakeMachine(memory=10 * GB)) as here:
        small = here.model("small")
        await here.say(small)
        with pytest.raises(InsufficientMemory) as caught:
            await here.lease(here.model("huge", weights=40 * GB))
        assert caught.value.facts["weights"] == 40 * GB
        assert [(status.spec.name, status.state) for status in here.supervisor.status()] == [
            ("small:latest", ModelState.READY)
        ]
        assert here.journal("huge") == []


async def test_one_greedy_wish_does_not_take_the_others_down(tmp_path: Path) -> None:
    async with house(tmp_path, FakeMachine(memory=2 * GB)) as here:
        spec = here.model(kv_per_token=1_000_000, training_context=100_000, gate=str(here.gate("fake")))
        modest = asyncio.create_task(here.say(wishing(spec, num_ctx=1000)))
        await asyncio.sleep(0)
        greedy = asyncio.create_task(here.say(wishing(spec, num_ctx=50_000, num_batch=2048)))
        here.gate("fake").touch()
        assert isinstance((await modest)[-1], Finished)
        with pytest.raises(InsufficientMemory):
            await greedy


async def test_the_devices_are_asked_for_before_the_first_load(tmp_path: Path) -> None:
    async with house(tmp_path, FakeMachine(memory=6 * GB, has_gpu=True)) as here:
        # Larger than the machine's memory, and it fits with that of the GPU (8 GiB) the fake lists.
        await here.say(here.model("a", weights=10 * GB, size=10 * GB, size_vram=6 * GB))
        with pytest.raises(InsufficientMemory):
            await here.lease(here.model("b", weights=20 * GB))


async def test_an_idle_model_goes_when_the_engine_finds_less_memory_than_was_planned_with(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        await here.say(here.model("crowd"))
        await here.say(here.model("bystander"))
        tight = here.model("tight", load="tight", crowd=str(here.folder / "crowd.journal"))
        assert isinstance((await here.say(tight))[-1], Finished)
        assert {status.spec.name for status in here.supervisor.status()} == {"bystander:latest", "tight:latest"}
        assert len(here.journal("tight", "load")) == 2


async def test_the_engine_has_the_last_word_when_nobody_can_go(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        busy = await here.lease(here.model("crowd"))
        with pytest.raises(RunnerError) as caught:
            await here.lease(here.model("tight", load="tight", crowd=str(here.folder / "crowd.journal")))
        assert caught.value.code == "insufficient_memory"
        busy.release()
