"""The supervisor over real processes: loading, leases, keep-alive."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from runner.chat.types import Finished, TextDelta
from runner.errors import InsufficientMemory, RunnerError
from runner.settings import ModelSettings
from runner.supervisor.supervisor import Supervisor
from runner.supervisor.types import ModelState
from tests.runner.supervisor_fixtures import (
    GB,
    FakeMachine,
    House,
    ask,
    house,
    process_is_gone,
    read,
    settings,
    until,
    wishing,
)


async def test_a_model_is_loaded_when_it_is_asked_for_and_answers(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        spec = here.model()
        async with await here.lease(spec) as lease:
            events = await read(lease.generate("a", ask("say 3")))
            assert [type(event) for event in events] == [TextDelta, TextDelta, TextDelta, Finished]
            assert lease.load_ns > 0
            assert here.supervisor.is_answering(spec.weights_digest)
        assert not here.supervisor.is_answering(spec.weights_digest)
        (status,) = here.supervisor.status()
        assert status.state is ModelState.READY
        assert status.loaded is not None
        assert (status.leases, status.restarts, status.last_reload_reason) == (0, 0, None)


async def test_requests_that_come_while_a_model_loads_share_one_load(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        spec = here.model(gate=str(here.gate("fake")))
        leasing = [asyncio.create_task(here.lease(spec)) for _ in range(5)]
        await until(lambda: here.journal(kind="load"))
        (status,) = here.supervisor.status()
        assert status.state is ModelState.LOADING
        await until(lambda: here.supervisor.status()[0].load_fraction == 0.25)
        here.gate("fake").touch()
        for lease in await asyncio.gather(*leasing):
            lease.release()
        assert len(here.journal(kind="load")) == 1


async def test_several_models_are_loaded_at_once(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        await asyncio.gather(here.say(here.model("first")), here.say(here.model("second")))
        assert {status.spec.name for status in here.supervisor.status()} == {"first:latest", "second:latest"}
        assert len(here.worker_pids()) == 2


async def test_two_names_for_the_same_weights_share_one_worker(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        spec = here.model()
        await here.say(spec)
        await here.say(replace(spec, name="other:latest", digest="other"))
        (status,) = here.supervisor.status()
        assert status.spec.name == "other:latest"
        assert len(here.journal(kind="load")) == 1


async def test_a_model_that_cannot_be_loaded_tells_everybody_who_waits_why(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        spec = here.model(load="fail", gate=str(here.gate("fake")))
        leasing = [asyncio.create_task(here.lease(spec)) for _ in range(3)]
        await until(lambda: here.journal(kind="load"))
        here.gate("fake").touch()
        for outcome in await asyncio.gather(*leasing, return_exceptions=True):
            assert isinstance(outcome, RunnerError)
            assert (outcome.code, dict(outcome.facts)) == ("model_invalid", {"tensor": 3})
        assert here.supervisor.status() == []


async def test_a_worker_that_cannot_be_started_is_an_error_and_not_a_wait(tmp_path: Path) -> None:
    supervisor = Supervisor(settings(), (str(tmp_path / "absent"),), FakeMachine())
    with pytest.raises(RunnerError, match="could not be started") as caught:
        await supervisor.lease(House(tmp_path, supervisor, FakeMachine()).model())
    assert caught.value.code == "engine_crashed"
    await supervisor.stop()


async def test_a_load_that_nobody_waits_for_any_more_is_given_up(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        spec = here.model(gate=str(here.gate("fake")))
        leasing = asyncio.create_task(here.lease(spec))
        await until(lambda: here.journal(kind="load"))
        (pid,) = here.worker_pids()
        leasing.cancel()
        await asyncio.gather(leasing, return_exceptions=True)
        await until(lambda: here.supervisor.status() == [])
        assert process_is_gone(pid)


async def test_who_comes_back_while_an_abandoned_load_ends_is_served(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        spec = here.model(gate=str(here.gate("fake")))
        leasing = asyncio.create_task(here.lease(spec))
        await until(lambda: here.journal(kind="load"))
        leasing.cancel()
        await asyncio.gather(leasing, return_exceptions=True)
        here.gate("fake").touch()
        assert isinstance((await here.say(spec))[-1], Finished)


async def test_a_lease_that_is_cancelled_as_it_is_granted_is_given_back(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        spec = here.model(gate=str(here.gate("fake")))
        leasing = asyncio.create_task(here.supervisor.lease(spec))
        await until(lambda: here.journal(kind="load"))
        here.gate("fake").touch()
        await until(lambda: here.supervisor.status()[0].leases)
        leasing.cancel()
        await asyncio.gather(leasing, return_exceptions=True)
        if not leasing.cancelled():
            leasing.result().release()
        assert here.supervisor.status()[0].leases == 0


async def test_an_idle_model_goes_when_its_keep_alive_is_over(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        spec = here.model()
        await here.say(spec, keep_alive=0.2)
        pids = here.worker_pids()
        assert len(pids) == 1
        await until(lambda: here.supervisor.status() == [])
        assert process_is_gone(pids[0])


async def test_the_keep_alive_starts_when_the_last_lease_ends(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        spec = here.model()
        first = await here.lease(spec, keep_alive=0.05)
        second = await here.lease(spec)
        first.release()
        await asyncio.sleep(0.2)
        assert [status.state for status in here.supervisor.status()] == [ModelState.READY]
        second.release()
        await until(lambda: here.supervisor.status() == [])


async def test_a_keep_alive_of_nothing_unloads_as_soon_as_the_model_is_idle(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        spec = here.model()
        staying = await here.lease(spec)
        await here.say(spec, keep_alive=0)
        assert here.supervisor.status()[0].state is ModelState.READY
        staying.release()
        assert here.supervisor.status()[0].state is ModelState.STOPPING
        await until(lambda: here.supervisor.status() == [])


async def test_a_later_keep_alive_replaces_the_earlier_and_none_leaves_it(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        spec = here.model()
        await here.say(spec, keep_alive=math.inf)
        await here.say(spec)
        assert here.supervisor.status()[0].expires_at is None
        await here.say(spec, keep_alive=3600)
        expires_at = here.supervisor.status()[0].expires_at
        assert expires_at is not None
        assert 3590 < (expires_at - datetime.now().astimezone()).total_seconds() <= 3600


async def test_a_configured_keep_alive_counts_for_its_model(tmp_path: Path) -> None:
    chosen = replace(settings(), models={"Fake": ModelSettings(keep_alive=math.inf)})
    async with house(tmp_path, chosen=chosen) as here:
        await here.say(here.model("fake"))
        await here.say(here.model("other"))
        kept, other = here.supervisor.status()
        assert (kept.spec.name, kept.expires_at) == ("fake:latest", None)
        assert other.expires_at is not None


async def test_unloading_an_idle_model_returns_when_its_process_is_gone(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        spec = here.model()
        assert await here.supervisor.unload(spec.weights_digest) is False
        await here.say(spec, keep_alive=math.inf)
        (pid,) = here.worker_pids()
        assert await here.supervisor.unload(spec.weights_digest) is True
        assert process_is_gone(pid, within=0)
        assert here.supervisor.status() == []


async def test_unloading_a_used_model_lets_its_requests_end_first(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        spec = here.model()
        lease = await here.lease(spec, keep_alive=math.inf)
        stream = lease.generate("a", ask("hold"))
        await anext(stream)
        assert await here.supervisor.unload(spec.weights_digest) is True
        assert here.supervisor.status()[0].state is ModelState.READY
        lease.release()
        await until(lambda: here.supervisor.status() == [])


async def test_who_comes_while_a_model_goes_finds_it_as_if_it_had_never_been_there(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        spec = here.model()
        await here.say(spec, keep_alive=math.inf)
        unloading = asyncio.create_task(here.supervisor.unload(spec.weights_digest))
        await asyncio.sleep(0)
        assert here.supervisor.status()[0].state is ModelState.STOPPING
        await here.say(spec)
        [status] = here.supervisor.status()
        assert status.state is ModelState.READY and status.expires_at is not None, "the usual keep-alive"
        await unloading
        await here.say(spec, keep_alive=0)
        assert here.supervisor.status()[0].state is ModelState.STOPPING
        await here.say(spec)
        assert here.supervisor.status()[0].state is ModelState.READY
        assert len(here.journal(kind="load")) == 3


async def test_a_model_that_was_unloaded_while_it_was_used_goes_even_if_its_worker_dies_first(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        spec = here.model()
        async with await here.lease(spec, keep_alive=math.inf) as lease:
            assert await here.supervisor.unload(spec.weights_digest)
            assert isinstance((await read(lease.generate("f", ask("faint 1 2"))))[-1], Finished)
            assert here.supervisor.status()[0].restarts == 1
        await until(lambda: here.supervisor.status() == [])


async def test_a_larger_batch_is_loaded_once_the_model_is_idle(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        spec = here.model()
        small = await here.lease(wishing(spec, num_batch=512))
        growing = asyncio.create_task(here.lease(wishing(spec, num_batch=1024)))
        late = asyncio.create_task(here.lease(wishing(spec, num_batch=256)))
        await asyncio.sleep(0.05)
        assert not growing.done()
        assert not late.done(), "a newcomer must not keep the model from becoming idle"
        small.release()
        for lease in (await growing, await late):
            lease.release()
        assert len(here.journal(kind="load")) == 2
        reason = here.supervisor.status()[0].last_reload_reason
        assert reason == "a request asked for num_batch 1024, and 512 was loaded"
        assert here.supervisor.status()[0].restarts == 0


async def test_a_larger_window_loads_nothing_again(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        spec = here.model()
        small = await here.lease(wishing(spec, num_ctx=1024))
        assert (small.loaded.context_length, small.loaded.reach) == (1024, 8192)
        large = await here.lease(wishing(spec, num_ctx=8192))
        small.release()
        large.release()
        assert len(here.journal(kind="load")) == 1
        assert here.supervisor.status()[0].last_reload_reason is None


async def test_clients_with_different_wishes_end_with_one_worker_that_serves_both(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        spec = here.model()
        for _ in range(3):
            await here.say(wishing(spec, num_ctx=4096))
            await here.say(wishing(spec, num_ctx=1024, num_thread=3))
        loads = [entry["options"] for entry in here.journal(kind="load")]
        assert [(load["context_length"], load["num_thread"]) for load in loads] == [(4096, None), (4096, 3)]


async def test_a_window_beyond_the_training_context_is_no_reason_to_load_again(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        spec = here.model(training_context=2048)
        await here.say(wishing(spec, num_ctx=100_000))
        await here.say(wishing(spec, num_ctx=200_000))
        assert [entry["options"]["context_length"] for entry in here.journal(kind="load")] == [2048]


async def test_a_reload_that_cannot_fit_is_refused_and_leaves_the_model_loaded(tmp_path: Path) -> None:
    async with house(tmp_path, FakeMachine(memory=1 * GB)) as here:
        spec = here.model(kv_per_token=500_000, training_context=1_000_000)
        await here.say(wishing(spec, num_ctx=1024))
        with pytest.raises(InsufficientMemory) as caught:
            await here.lease(wishing(spec, num_ctx=20_000, num_batch=2048))
        assert caught.value.facts["context_length"] == 4096
        assert len(here.journal(kind="load")) == 1
        assert here.supervisor.status()[0].state is ModelState.READY


async def test_a_reload_that_cannot_fit_is_refused_while_the_model_is_still_used(tmp_path: Path) -> None:
    async with house(tmp_path, FakeMachine(memory=1 * GB)) as here:
        spec = here.model(kv_per_token=500_000, training_context=1_000_000)
        async with await here.lease(wishing(spec, num_ctx=1024)):
            with pytest.raises(InsufficientMemory):
                await here.lease(wishing(spec, num_ctx=20_000, num_batch=2048))
        assert len(here.journal(kind="load")) == 1
        assert here.supervisor.status()[0].state is ModelState.READY
