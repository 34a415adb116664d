"""Pulls: one for each name, as long as somebody follows it."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

import pytest

from registry.errors import SourceUnreachable
from registry.name import ModelName
from registry.progress import Progress
from runner.api.downloads import Downloads, Follower
from tests.fakes import PATIENCE, FakePuller
from tests.runner.api.serving import FakeDaemon, connection

NAME = ModelName.parse("m")
LAYER = "sha256:" + "ab" * 32


def layer(completed: int) -> Progress:
    return Progress("pulling abababababab", LAYER, 100, completed)


STEPS = (Progress("pulling manifest"), layer(0), layer(50), layer(100), Progress("success"))


def downloads(puller: FakePuller) -> Downloads:
    return Downloads(cast("Any", puller))


async def read(follower: Follower) -> list[Progress]:
    async with asyncio.timeout(PATIENCE):
        return [progress async for progress in follower]


async def test_a_follower_sees_every_status_and_the_last_numbers() -> None:
    seen = await read(downloads(FakePuller(STEPS)).follow(NAME))
    assert seen[0] == STEPS[0] and seen[-1] == STEPS[-1]
    assert layer(100) in seen


async def test_two_followers_share_one_pull() -> None:
    gate = asyncio.Event()
    puller = FakePuller(STEPS, gate=gate)
    here = downloads(puller)
    first, second = here.follow(NAME), here.follow(ModelName.parse("M:latest"))
    gate.set()
    assert await read(first) == await read(second)
    assert puller.pulled == [NAME]
    assert not here.is_running(NAME)


async def test_whoever_joins_late_is_told_the_state_so_far() -> None:
    gate = asyncio.Event()
    here = downloads(FakePuller(STEPS, gate=gate))
    first = here.follow(NAME)
    assert await anext(first) == STEPS[0]
    late = here.follow(NAME)
    assert await anext(late) == STEPS[0]
    gate.set()
    assert (await read(late))[-1] == STEPS[-1]
    await first.aclose()


async def test_different_names_are_different_pulls() -> None:
    puller = FakePuller(STEPS)
    here = downloads(puller)
    other = ModelName.parse("other")
    await asyncio.gather(read(here.follow(NAME)), read(here.follow(other)))
    assert set(puller.pulled) == {NAME, other}


async def test_the_last_one_to_leave_stops_the_pull() -> None:
    gate = asyncio.Event()
    puller = FakePuller(STEPS, gate=gate)
    here = downloads(puller)
    first, second = here.follow(NAME), here.follow(NAME)
    await anext(first)
    await first.aclose()
    assert here.is_running(NAME) and not puller.stopped.is_set()
    await second.aclose()
    assert puller.stopped.is_set()
    assert not here.is_running(NAME)


async def test_a_new_pull_begins_when_the_former_has_stopped() -> None:
    gate = asyncio.Event()
    puller = FakePuller(STEPS, gate=gate)
    here = downloads(puller)
    first = here.follow(NAME)
    await anext(first)
    leaving = asyncio.create_task(first.aclose())
    await asyncio.sleep(0)
    gate.set()
    again = here.follow(NAME)
    assert (await read(again))[-1] == STEPS[-1]
    await leaving
    assert puller.pulled == [NAME, NAME]


async def test_every_follower_is_told_of_a_failure() -> None:
    gate = asyncio.Event()
    here = downloads(FakePuller(STEPS[:2], SourceUnreachable("no network"), gate))
    followers = [here.follow(NAME), here.follow(NAME)]
    gate.set()
    for follower in followers:
        with pytest.raises(SourceUnreachable):
            await read(follower)
        await follower.aclose()
    assert not here.is_running(NAME)


async def test_a_slow_follower_misses_numbers_and_no_status() -> None:
    steps = [Progress("pulling manifest"), *map(layer, range(101)), Progress("verifying"), Progress("success")]
    here = downloads(FakePuller(steps))
    quick, slow = here.follow(NAME), here.follow(NAME)
    await read(quick)
    assert await read(slow) == [steps[0], layer(100), *steps[-2:]]


# --- over HTTP ------------------------------------------------------------------------------------


async def test_progress_is_streamed_as_it_comes() -> None:
    gate = asyncio.Event()
    daemon = FakeDaemon(puller=FakePuller(STEPS, gate=gate))
    async with (
        connection(daemon.app()) as client,
        client.stream("POST", "/api/pull", json={"model": "m", "username": "x"}) as response,
    ):
        lines = response.aiter_lines()
        assert json.loads(await anext(lines)) == {"status": "pulling manifest"}
        gate.set()
        rest = [json.loads(line) async for line in lines]
    assert rest[-1] == {"status": "success"}
    assert {"status": "pulling abababababab", "digest": LAYER, "total": 100, "completed": 100} in rest
    assert response.headers["x-puna-ignored"] == "username"


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_stops_the_pull_nobody_else_follows(stream: bool) -> None:
    gate = asyncio.Event()
    daemon = FakeDaemon(puller=FakePuller(STEPS, gate=gate))
    async with connection(daemon.app()) as client:
        asking = asyncio.create_task(client.post("/api/pull", json={"model": "m", "stream": stream}))
        async with asyncio.timeout(PATIENCE):
            await daemon.puller.begun.wait()
            asking.cancel()
            await daemon.puller.stopped.wait()


async def test_a_failure_before_any_progress_is_a_status() -> None:
    daemon = FakeDaemon(puller=FakePuller((), SourceUnreachable("no network")))
    async with daemon.client() as client:
        streamed = await client.post("/api/pull", json={"model": "m"})
        unstreamed = await client.post("/api/pull", json={"model": "m", "stream": False})
    assert streamed.status_code == unstreamed.status_code == 502
    assert streamed.json()["code"] == "registry_unreachable"


async def test_a_failure_after_progress_is_the_last_record() -> None:
    daemon = FakeDaemon(puller=FakePuller(STEPS[:1], SourceUnreachable("no network")))
    async with daemon.client() as client:
        streamed = await client.post("/api/pull", json={"model": "m"})
        unstreamed = await client.post("/api/pull", json={"model": "m", "stream": False})
    assert streamed.status_code == 200
    assert json.loads(streamed.text.splitlines()[-1])["error"] == "no network"
    assert unstreamed.status_code == 502


async def test_insecure_pulls_are_refused() -> None:
    async with FakeDaemon().client() as client:
        response = await client.post("/api/pull", json={"model": "m", "insecure": True})
    assert (response.status_code, response.json()["code"]) == (400, "unsupported")
