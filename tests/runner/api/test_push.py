"""POST /api/push: records, errors, and what ends a push."""

from __future__ import annotations

import asyncio
import json

import httpx

from registry.errors import RegistryForbidden, Unauthorized
from registry.progress import Progress
from tests.fakes import FakePusher
from tests.runner.api.serving import FakeDaemon, connection

DIGEST = "sha256:" + "0" * 64
STEPS = (
    Progress("retrieving manifest"),
    Progress("pushing 000000000000", DIGEST, 10, 4),
    Progress("pushing 000000000000", DIGEST, 10, 10),
    Progress("pushing manifest"),
    Progress("success"),
)


async def push(client: httpx.AsyncClient, **body: object) -> httpx.Response:
    return await client.post("/api/push", json={"model": "registry.example.com/me/tiny", **body})


async def test_a_push_tells_its_steps_line_by_line() -> None:
    daemon = FakeDaemon(pusher=FakePusher(STEPS))
    async with daemon.client() as client:
        answer = await push(client)
    records = [json.loads(line) for line in answer.text.splitlines()]
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert [record["status"] for record in records] == [step.status for step in STEPS]
    assert records[1] == {"status": "pushing 000000000000", "digest": DIGEST, "total": 10, "completed": 4}
    assert [name.full for name in daemon.pusher.pulled] == ["registry.example.com/me/tiny:latest"]


async def test_a_push_without_a_stream_tells_the_last_step() -> None:
    async with FakeDaemon(pusher=FakePusher(STEPS)).client() as client:
        answer = await push(client, stream=False)
    assert answer.json() == {"status": "success"}


async def test_a_push_may_ask_to_go_without_protection() -> None:
    daemon = FakeDaemon()
    async with daemon.client() as client:
        await push(client, insecure=True)
        await push(client)
    assert len(daemon.pusher.insecure) == 1
    assert len(daemon.pusher.pulled) == 2


async def test_a_login_that_is_missing_is_status_401() -> None:
    daemon = FakeDaemon(pusher=FakePusher((), Unauthorized("unauthorized: log in", host="registry.example.com")))
    async with daemon.client() as client:
        answer = await push(client)
    assert answer.status_code == 401
    assert (answer.json()["code"], answer.json()["host"]) == ("unauthorized", "registry.example.com")


async def test_a_failure_on_the_way_is_the_last_record() -> None:
    daemon = FakeDaemon(pusher=FakePusher(STEPS[:2], RegistryForbidden("`puna registry add` first")))
    async with daemon.client() as client:
        answer = await push(client)
    last = json.loads(answer.text.splitlines()[-1])
    assert (last["error"], last["code"]) == ("`puna registry add` first", "registry_forbidden")


async def test_a_client_that_leaves_ends_the_push() -> None:
    daemon = FakeDaemon(pusher=FakePusher(STEPS, gate=asyncio.Event()))
    async with connection(daemon.app()) as client:
        async with client.stream("POST", "/api/push", json={"model": "me/tiny"}) as answer:
            assert answer.status_code == 200
            await daemon.pusher.begun.wait()
        await asyncio.wait_for(daemon.pusher.stopped.wait(), 10)


async def test_a_push_needs_a_model_with_a_possible_name() -> None:
    async with FakeDaemon().client() as client:
        without = await client.post("/api/push", json={})
        impossible = await client.post("/api/push", json={"model": "a b"})
    assert (without.status_code, without.json()["error"]) == (400, "model is required")
    assert impossible.json()["code"] == "invalid_request"
