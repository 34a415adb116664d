"""Waiting for a model: places, full queues, deadlines."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from runner.errors import DeadlineExceeded, QueueFull
from tests.runner.supervisor_fixtures import ask, house, read, settings, until


async def test_only_so_many_leases_are_given_at_a_time_and_in_order(tmp_path: Path) -> None:
    async with house(tmp_path, chosen=settings(max_sequences=2)) as here:
        spec = here.model()
        held = [await here.lease(spec) for _ in range(4)]  # two that run, two that are prepared
        order: list[int] = []

        async def take(number: int) -> None:
            async with await here.lease(spec):
                order.append(number)

        tasks = []
        for number in range(3):
            tasks.append(asyncio.create_task(take(number)))
            await asyncio.sleep(0)
        await asyncio.sleep(0.05)
        assert order == []
        held.pop().release()
        await asyncio.gather(*tasks)
        assert order == [0, 1, 2]
        for lease in held:
            lease.release()


async def test_one_too_many_for_a_model_is_refused_with_the_numbers(tmp_path: Path) -> None:
    async with house(tmp_path, chosen=settings(max_waiting_per_model=2)) as here:
        spec = here.model(gate=str(here.gate("fake")))
        waiting = [asyncio.create_task(here.say(spec, "say 1")) for _ in range(2)]
        await until(lambda: here.journal(kind="load"))
        with pytest.raises(QueueFull) as caught:
            await here.lease(spec)
        assert caught.value.facts["limit"] == 2
        assert caught.value.facts["waiting"] == 2
        assert caught.value.facts["model"] == "fake:latest"
        here.gate("fake").touch()
        await waiting[0]
        await waiting[1]
        await here.say(spec)


async def test_the_total_is_bounded_too_but_a_free_model_is_never_refused(tmp_path: Path) -> None:
    async with house(tmp_path, chosen=settings(max_waiting=1)) as here:
        free, loading = here.model("free"), here.model("loading", gate=str(here.gate("loading")))
        await here.say(free)
        waiting = asyncio.create_task(here.say(loading, "say 1"))
        await until(lambda: here.journal("loading", "load"))
        with pytest.raises(QueueFull):
            await here.lease(here.model("third"))
        await here.say(free)
        here.gate("loading").touch()
        await waiting


async def test_whoever_waits_too_long_is_told_so_and_leaves_no_trace(tmp_path: Path) -> None:
    async with house(tmp_path, chosen=settings(deadline_seconds=0.2)) as here:
        spec = here.model(gate=str(here.gate("fake")))
        with pytest.raises(DeadlineExceeded) as caught:
            await here.lease(spec)
        assert caught.value.facts["deadline_seconds"] == 0.2
        await until(lambda: here.supervisor.status() == [])


async def test_a_deadline_passed_in_the_queue_leaves_running_answers_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(tmp_path, chosen=settings(max_sequences=1)) as here:
        spec = here.model()
        held = [await here.lease(spec) for _ in range(3)]
        stream = held[0].generate("a", ask("say 5"))
        # From here on: a load may take its time.
        monkeypatch.setattr(here.supervisor, "_settings", settings(deadline_seconds=0.1))
        with pytest.raises(DeadlineExceeded):
            await here.lease(spec)
        monkeypatch.undo()
        assert len(await read(stream)) == 6
        for lease in held:
            lease.release()
        await here.say(spec)


async def test_a_hundred_requests_at_once_are_all_answered(tmp_path: Path) -> None:
    async with house(tmp_path, chosen=settings(max_sequences=4)) as here:
        spec = here.model()

        async def one(number: int) -> int:
            async with await here.lease(spec) as lease:
                return len(await read(lease.generate(f"r{number}", ask("say 5"))))

        assert await asyncio.gather(*(one(number) for number in range(100))) == [6] * 100
        assert here.supervisor.status()[0].leases == 0
