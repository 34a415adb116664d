"""The supervisor over real processes: loading, leases, keep-alive."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import pytest

from runner.chat.types import Failed, Finished, TextDelta
from runner.errors import RunnerError
from runner.supervisor.types import ModelState
from tests.runner.supervisor_fixtures import ask, house, read, settings, until


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
