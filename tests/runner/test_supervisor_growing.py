"""Windows that grow: what memory allows, who goes for it, and what is told of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from runner.chat.types import Finished
from runner.loaded_model import LoadedModel
from runner.supervisor.growing import (
    AskLater,
    Give,
    GrowTo,
    Keep,
    StayAt,
    decide_growth,
    decide_room,
    largest_window,
    next_window,
)
from runner.supervisor.memory import WINDOW_STEP, Holding, MemoryPlan, Room
from runner.supervisor.policy import Evict, Occupant
from runner.supervisor.types import ModelState
from tests.runner.supervisor_fixtures import GB, FakeMachine, ask, house, read, until, wishing

KB = 1000
PLAN = MemoryPlan(weights=4 * GB, kv=0, buffers=0, context_length=4096, kv_per_token=100 * KB, longest=131_072)


def loaded(window: int = 4096, longest: int = 131_072, size_vram: int = 0) -> LoadedModel:
    return LoadedModel(
        architecture="fake", engine="fake", context_length=window, training_context=longest, max_sequences=4,
        vocabulary=10, size=1, size_vram=size_vram, layers=1, gpu_layers=0, devices=(), placement="", threads=1,
        has_chat_template=True, can_shift=True, longest_context=longest,
    )  # fmt: skip


def other(name: str, size: int, *, is_idle: bool = True, is_leaving: bool = False, used: int = 0) -> Occupant:
    return Occupant(name, Holding(size, 0), is_idle, is_leaving, used)


def test_a_window_doubles_while_there_is_room_and_then_takes_what_is_left() -> None:
    assert next_window(4097, loaded(), 131_072) == 8192
    assert next_window(20_000, loaded(), 131_072) == 20_224, "in whole steps"
    assert next_window(5000, loaded(), 6144) == 6144
    assert next_window(7000, loaded(), 6144) is None


@given(st.integers(0, 10**11), st.integers(0, 10**6), st.integers(1, 60_000), st.integers(256, 131_072))
def test_a_window_never_grows_beyond_memory_nor_shrinks(ram: int, kv: int, cells: int, window: int) -> None:
    plan = MemoryPlan(GB, 0, 0, window, kv, 131_072)
    largest = largest_window(plan, loaded(window), Room(ram, 0))
    assert window <= largest <= 131_072
    assert largest == window or largest * kv <= ram
    granted = next_window(window + cells, loaded(window), largest)
    assert (granted is None) == (window + cells > largest)
    assert granted is None or window + cells <= granted <= largest


def test_the_memory_that_counts_is_that_of_the_device_the_model_is_on() -> None:
    room = Room(ram=64 * GB, vram=1 * GB)
    assert largest_window(PLAN, loaded(size_vram=1), room) == 9984
    assert largest_window(PLAN, loaded(), room) == 131_072
    assert largest_window(PLAN, loaded(size_vram=1), Room(1 * GB, None)) == 9984, "shared with the machine's"
    assert 9984 % WINDOW_STEP == 0


def test_idle_models_go_for_a_window_and_only_as_many_as_it_takes() -> None:
    room = Room(ram=1 * GB, vram=0)
    others = [other("late", GB, used=2), other("early", GB, used=1), other("busy", 9 * GB, is_idle=False)]
    assert decide_growth(9000, PLAN, loaded(), room, others) == GrowTo(9216)
    assert decide_growth(15_000, PLAN, loaded(), room, others) == Evict(("early",))
    assert decide_growth(25_000, PLAN, loaded(), room, others) == Evict(("early", "late"))
    assert decide_growth(35_000, PLAN, loaded(), room, others) == StayAt(9984), "nobody goes in vain"
    leaving = [*others, other("gone", 1, is_idle=False, is_leaving=True)]
    assert decide_growth(15_000, PLAN, loaded(), room, leaving) == AskLater()


async def test_a_worker_that_wants_more_cells_gets_them_and_loads_nothing_again(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        spec = here.model(training_context=32_768)
        before = await here.lease(spec)
        assert (before.loaded.context_length, before.loaded.reach) == (4096, 32_768)
        busy = before.generate("busy", ask("hold"))
        await anext(busy)
        assert isinstance((await read(before.generate("long", ask("want 5000"))))[-1], Finished)
        [status] = here.supervisor.status()
        assert status.loaded is not None
        assert (status.loaded.context_length, status.growths) == (8192, 1)
        assert status.grown_at is not None
        assert (status.last_reload_reason, status.restarts) == (None, 0)
        after = await here.lease(wishing(spec, num_ctx=20_000))
        assert after.loaded.context_length == 8192
        assert len(here.journal(kind="load")) == 1
        assert [entry["context_length"] for entry in here.journal(kind="grow")] == [8192]
        for lease in (before, after):
            lease.release()


async def test_a_window_that_memory_does_not_allow_is_refused_with_the_largest(tmp_path: Path) -> None:
    async with house(tmp_path, FakeMachine(memory=2 * GB)) as here:
        spec = here.model(kv_per_token=100_000, training_context=1_000_000)
        assert isinstance((await here.say(spec, "want 900000"))[-1], Finished)
        [refused] = here.journal(kind="keep_window")
        [status] = here.supervisor.status()
        assert status.loaded is not None
        assert 4096 < refused["largest"] < 20_000
        assert (status.largest_context, status.loaded.context_length, status.growths) == (refused["largest"], 4096, 0)
        [load] = here.journal(kind="load")
        assert 4096 < load["largest_context"] <= 20_000
        assert isinstance((await here.say(spec, f"want {refused['largest']}"))[-1], Finished)
        assert here.supervisor.status()[0].growths == 1


async def test_an_idle_model_goes_for_the_window_of_a_busy_one(tmp_path: Path) -> None:
    async with house(tmp_path, FakeMachine(memory=2 * GB)) as here:
        await here.say(here.model("idle", weights=900_000_000, size=900_000_000, training_context=256))
        spec = here.model("busy", kv_per_token=50_000, training_context=1_000_000)
        assert isinstance((await here.say(spec, "want 16000"))[-1], Finished)
        assert [(one.spec.name, one.growths) for one in here.supervisor.status()] == [("busy:latest", 1)]


async def test_the_engine_has_the_last_word_on_a_window(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        spec = here.model(cannot_grow=True)
        assert isinstance((await here.say(spec, "want 5000"))[-1], Finished)
        [status] = here.supervisor.status()
        assert status.loaded is not None
        assert (status.loaded.context_length, status.growths, status.grown_at) == (4096, 0, None)


async def test_a_worker_that_dies_while_its_window_grows_comes_back_as_it_was_loaded(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        spec = here.model()
        async with await here.lease(spec) as lease:
            assert isinstance((await read(lease.generate("long", ask("want 5000"))))[-1], Finished)
            await read(lease.generate("killer", ask("faint 1 2")))
        await until(lambda: here.supervisor.status()[0].state is ModelState.READY)
        [status] = here.supervisor.status()
        assert status.loaded is not None
        assert (status.loaded.context_length, status.restarts) == (4096, 1)
        async with asyncio.timeout(20):
            assert isinstance((await here.say(spec, "want 5000"))[-1], Finished)


async def test_memory_beside_a_model_is_counted_until_its_worker_is_gone(tmp_path: Path) -> None:
    async with house(tmp_path, FakeMachine(memory=2 * GB)) as here:
        spec = here.model()
        await here.say(spec)
        before = here.supervisor.status()[0].planned
        async with await here.lease(spec) as lease:
            await read(lease.generate("a", ask("room 500000000")))
            [status] = here.supervisor.status()
            assert (status.planned - before, status.memory["vectors"]) == (500_000_000, 500_000_000)
            await read(lease.generate("b", ask("room 200000000")))
            assert here.supervisor.status()[0].planned - before == 200_000_000, "in all, not more"
            await read(lease.generate("c", ask("faint 1 2")))
        assert here.supervisor.status()[0].planned == before


async def test_memory_beside_a_model_is_refused_when_there_is_none_and_idle_models_go_for_it(tmp_path: Path) -> None:
    async with house(tmp_path, FakeMachine(memory=2 * GB)) as here:
        await here.say(here.model("idle", weights=900_000_000, size=900_000_000, training_context=256))
        spec = here.model("busy")
        assert isinstance((await here.say(spec, "room 5000000000"))[-1], Finished)
        [refused] = here.journal("busy", kind="room_refused")
        assert refused["size"] == 5 * GB and 0 < refused["available"] < 2 * GB
        assert len(here.supervisor.status()) == 2, "nobody goes in vain"
        assert isinstance((await here.say(spec, "room 1500000000"))[-1], Finished)
        assert [one.spec.name for one in here.supervisor.status()] == ["busy:latest"]


def test_memory_beside_is_that_of_the_device_the_model_is_on() -> None:
    room = Room(ram=GB, vram=3 * GB)
    assert decide_room(2 * GB, loaded(size_vram=1), room, []) == Give()
    assert decide_room(2 * GB, loaded(), room, []) == Keep(GB)
    leaving = other("gone", 1, is_idle=False, is_leaving=True)
    assert decide_room(2 * GB, loaded(), room, [leaving]) == AskLater()
