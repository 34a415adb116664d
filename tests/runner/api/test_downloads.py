"""Pulls, and what becomes of them when their client leaves."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

import pytest

from registry.errors import SourceUnreachable
from registry.finder import Target
from registry.name import ModelName
from registry.progress import Progress
from registry.sources.model_url import ModelUrl
from runner.api.downloads import Downloads
from tests.fakes import PATIENCE, FakeFinder, FakePuller
from tests.runner.api.serving import FakeDaemon, connection

NAME = ModelName.parse("m")
LAYER = "sha256:" + "ab" * 32


def layer(completed: int) -> Progress:
    return Progress("pulling abababababab", LAYER, 100, completed)


def downloads(puller: FakePuller, finder: FakeFinder | None = None) -> Downloads:
    return Downloads(cast("Any", puller), cast("Any", finder or FakeFinder()))


STEPS = (Progress("pulling manifest"), layer(0), layer(50), layer(100), Progress("success"))


async def test_a_pull_is_known_while_it_runs_and_no_longer() -> None:
    gate = asyncio.Event()
    here = downloads(FakePuller(STEPS, gate=gate))
    pull = here.pull(NAME)
    assert not here.is_running(NAME)
    await anext(pull)
    assert here.is_running(ModelName.parse("M:latest")) and not here.is_running(ModelName.parse("other"))
    gate.set()
    assert [step async for step in pull] == list(STEPS[1:])
    assert not here.is_running(NAME)


async def test_where_a_model_came_from_is_noted_before_its_success_is_told() -> None:
    finder = FakeFinder()
    url = ModelUrl("https://example.com/m.gguf")
    async for step in downloads(FakePuller(STEPS), finder).pull(NAME, source=url):
        assert finder.remembered == ([Target(NAME, url)] if step.status == "success" else [])
    assert finder.sought == [url]


async def test_a_pull_that_broke_off_goes_on_from_where_it_was_begun() -> None:
    url = ModelUrl("https://example.com/m.gguf")
    finder = FakeFinder(begun=url)
    assert [step async for step in downloads(FakePuller(STEPS), finder).pull(NAME)] == list(STEPS)
    assert finder.sought == [url] and finder.remembered == [Target(NAME, url)]


async def test_a_pull_that_fails_is_not_noted() -> None:
    finder = FakeFinder()
    with pytest.raises(SourceUnreachable):
        async for _ in downloads(FakePuller(STEPS[:1], SourceUnreachable("no network")), finder).pull(NAME):
            pass
    assert finder.remembered == [] and finder.sought == []


async def test_of_two_pulls_one_may_be_given_up() -> None:
    puller = FakePuller(STEPS, gate=asyncio.Event())
    here = downloads(puller)
    first, second = here.pull(NAME), here.pull(NAME)
    await anext(first)
    await anext(second)
    await first.aclose()
    assert puller.stopped.is_set() and here.is_running(NAME)
    await second.aclose()
    assert not here.is_running(NAME)


async def test_a_failed_pull_is_over() -> None:
    here = downloads(FakePuller(STEPS[:1], SourceUnreachable("no network")))
    with pytest.raises(SourceUnreachable):
        async for _ in here.pull(NAME):
            assert here.is_running(NAME)
    assert not here.is_running(NAME)


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
async def test_a_client_that_leaves_gives_its_pull_up(stream: bool) -> None:
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


async def test_a_pull_may_ask_to_go_without_protection() -> None:
    daemon = FakeDaemon()
    async with daemon.client() as client:
        await client.post("/api/pull", json={"model": "localhost:5000/a/b", "insecure": True})
        await client.post("/api/pull", json={"model": "localhost:5000/c/d"})
    assert [name.model for name in daemon.puller.pulled] == ["b", "d"]
    assert [name.model for name in daemon.puller.insecure] == ["b"]


async def test_when_the_daemon_stops_pulls_end_and_that_is_their_last_record() -> None:
    daemon = FakeDaemon(puller=FakePuller(STEPS, gate=asyncio.Event()))
    app = daemon.app()
    async with connection(app) as client:
        async with client.stream("POST", "/api/pull", json={"model": "m"}) as response:
            lines = response.aiter_lines()
            await anext(lines)
            app.stop()
            told = [json.loads(line) async for line in lines]
        refused = await client.post("/api/pull", json={"model": "m"})
    assert [record["code"] for record in told] == ["server_shutdown"]
    assert daemon.puller.stopped.is_set()
    assert (refused.status_code, refused.json()["code"]) == (503, "server_shutdown")
