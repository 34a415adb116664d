"""Responses of the background: told at once, made while nobody waits, followed from any event, and cancelled."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from runner.api.openai import responses_background
from runner.chat.types import Priority, TextDelta
from runner.errors import QueueFull
from tests.fakes import PATIENCE, FakeSupervisor, answer, finished
from tests.runner.api.serving import FakeDaemon, connection

ASKED = {"model": "m", "input": "Hi", "background": True}


async def until(client: httpx.AsyncClient, response_id: str, *states: str) -> dict[str, Any]:
    """The response once it is in one of these states."""
    async with asyncio.timeout(PATIENCE):
        while True:
            response: dict[str, Any] = (await client.get(f"/v1/responses/{response_id}")).json()
            if response["status"] in states:
                return response
            await asyncio.sleep(0)


async def line_with(lines: AsyncIterator[str], text: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while text not in await anext(lines):
            pass


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: {")]


async def test_one_is_told_at_once_and_found_when_it_has_ended() -> None:
    daemon = FakeDaemon(FakeSupervisor([TextDelta("Hel")]))
    daemon.supervisor.lease_gate.clear()
    async with daemon.client() as client:
        begun = (await client.post("/v1/responses", json=ASKED)).json()
        assert (begun["status"], begun["background"], begun["output"]) == ("queued", True, [])
        daemon.supervisor.lease_gate.set()
        halfway = await until(client, begun["id"], "in_progress")
        assert halfway["output"][0]["content"][0]["text"] == "Hel"
        read = (await client.get(f"/v1/responses/{begun['id']}/input_items")).json()["data"]
        early = await client.post("/v1/responses", json={**ASKED, "previous_response_id": begun["id"]})
        assert (early.status_code, early.json()["error"]["param"]) == (400, "previous_response_id")
        daemon.supervisor.send(TextDelta("lo"), finished())
        done = await until(client, begun["id"], "completed")
        again = await client.post(f"/v1/responses/{begun['id']}/cancel")
    assert done["output"][0]["content"][0]["text"] == "Hello"
    assert read[0]["content"][0]["text"] == "Hi"
    assert again.json() == done
    assert daemon.supervisor.request.priority is Priority.BACKGROUND
    assert not daemon.supervisor.open_leases


async def test_events_can_be_told_again_from_any_number() -> None:
    async with FakeDaemon(FakeSupervisor(answer("Hel", "lo"))).client() as client:
        first = events((await client.post("/v1/responses", json={**ASKED, "stream": True})).text)
        path = f"/v1/responses/{first[0]['response']['id']}"
        await until(client, first[0]["response"]["id"], "completed")
        again = events((await client.get(path, params={"stream": "true"})).text)
        later = events((await client.get(path, params={"stream": "true", "starting_after": 3})).text)
        wrong = await client.get(path, params={"stream": "true", "starting_after": "-1"})
    assert [event["sequence_number"] for event in first] == list(range(len(first)))
    assert [event["type"] for event in first[:3]] == ["response.created", "response.queued", "response.in_progress"]
    assert first[0]["response"]["status"] == "queued"
    assert first[-1]["type"] == "response.completed"
    assert again == first
    assert later == first[4:]
    assert wrong.status_code == 400


async def test_a_follower_waits_for_what_is_still_to_come_and_may_leave() -> None:
    daemon = FakeDaemon(FakeSupervisor([TextDelta("Hel")]))
    async with connection(daemon.app()) as client:
        begun = (await client.post("/v1/responses", json=ASKED)).json()
        path = f"/v1/responses/{begun['id']}"
        async with client.stream("GET", path, params={"stream": "true"}) as stream:
            async for line in stream.aiter_lines():
                if "Hel" in line:
                    break
        assert (await until(client, begun["id"], "in_progress"))["id"] == begun["id"]
        rest = asyncio.create_task(client.get(path, params={"stream": "true", "starting_after": 4}))
        daemon.supervisor.send(TextDelta("lo"), finished())
        told = events((await rest).text)
    assert told[0]["sequence_number"] == 5
    assert told[-1]["response"]["output"][0]["content"][0]["text"] == "Hello"


@pytest.mark.parametrize("has_begun", [True, False])
async def test_one_that_is_cancelled_ends_and_stays_as_far_as_it_came(has_begun: bool) -> None:
    daemon = FakeDaemon(FakeSupervisor([TextDelta("Hel")]))
    if not has_begun:
        daemon.supervisor.lease_gate.clear()
    async with daemon.client() as client:
        begun = (await client.post("/v1/responses", json=ASKED)).json()
        if has_begun:
            await until(client, begun["id"], "in_progress")
        cancelled = (await client.post(f"/v1/responses/{begun['id']}/cancel")).json()
        kept = (await client.get(f"/v1/responses/{begun['id']}")).json()
        told = events((await client.get(f"/v1/responses/{begun['id']}", params={"stream": "true"})).text)
    assert cancelled == kept
    assert cancelled["status"] == "cancelled"
    assert [item["content"][0]["text"] for item in cancelled["output"]] == (["Hel"] if has_begun else [])
    assert told[-1]["type"] == "response.cancelled"
    assert bool(daemon.supervisor.cancelled) is has_begun
    assert not daemon.supervisor.open_leases


async def test_one_that_is_deleted_is_not_made_any_more() -> None:
    daemon = FakeDaemon(FakeSupervisor([TextDelta("Hel")]))
    async with daemon.client() as client:
        begun = (await client.post("/v1/responses", json=ASKED)).json()
        await until(client, begun["id"], "in_progress")
        assert (await client.delete(f"/v1/responses/{begun['id']}")).json()["deleted"] is True
        assert (await client.get(f"/v1/responses/{begun['id']}")).status_code == 404
    assert not daemon.supervisor.open_leases


async def test_what_goes_wrong_later_is_told_by_the_response() -> None:
    daemon = FakeDaemon(FakeSupervisor())
    daemon.supervisor.lease_error = QueueFull("Too many wait.")
    async with daemon.client() as client:
        begun = (await client.post("/v1/responses", json=ASKED)).json()
        failed = await until(client, begun["id"], "failed")
        told = events((await client.get(f"/v1/responses/{begun['id']}", params={"stream": "true"})).text)
    assert failed["error"]["message"] == "Too many wait."
    assert told[-1]["code"] == "queue_full"


@pytest.mark.parametrize(
    ("changes", "status", "param"),
    [({"store": False}, 400, "store"), ({"model": "nothing"}, 404, None), ({"temperature": -1}, 400, "temperature")],
)
async def test_what_is_wrong_with_the_request_is_told_at_once(
    changes: dict[str, Any], status: int, param: str | None
) -> None:
    async with FakeDaemon().client() as client:
        refused = await client.post("/v1/responses", json={**ASKED, **changes})
    assert (refused.status_code, refused.json()["error"]["param"]) == (status, param)


async def test_only_so_many_are_made_at_once_and_only_so_much_is_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responses_background, "MOST_AT_ONCE", 1)
    monkeypatch.setattr(responses_background, "MOST_EVENT_BYTES", 10)
    daemon = FakeDaemon(FakeSupervisor([TextDelta("Hel")]))
    async with daemon.client() as client:
        begun = (await client.post("/v1/responses", json=ASKED)).json()
        refused = await client.post("/v1/responses", json=ASKED)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "queue_full")
        early = await client.get(f"/v1/responses/{begun['id']}", params={"stream": "true"})
        await until(client, begun["id"], "in_progress")
        daemon.supervisor.send(finished())
        done = await until(client, begun["id"], "completed")
        later = await client.get(f"/v1/responses/{begun['id']}", params={"stream": "true"})
    assert done["output"][0]["content"][0]["text"] == "Hel"
    for followed in (early, later):
        assert (followed.status_code, followed.json()["error"]["code"]) == (400, "unsupported")


async def test_when_the_daemon_stops_only_what_somebody_follows_is_still_made() -> None:
    daemon = FakeDaemon(FakeSupervisor([TextDelta("Hel")]))
    app = daemon.app()
    async with connection(app) as client:
        unread = (await client.post("/v1/responses", json=ASKED)).json()["id"]
        await until(client, unread, "in_progress")
        followed = (await client.post("/v1/responses", json=ASKED)).json()["id"]
        async with client.stream("GET", f"/v1/responses/{followed}", params={"stream": "true"}) as stream:
            lines = stream.aiter_lines()
            await line_with(lines, "Hel")
            app.stop()
            failed = await until(client, unread, "failed")
            refused = await client.post("/v1/responses", json=ASKED)
            daemon.supervisor.send(TextDelta("lo"), finished())
            await line_with(lines, "response.completed")
        again = events((await client.get(f"/v1/responses/{unread}", params={"stream": "true"})).text)
        whole = (await client.get(f"/v1/responses/{followed}")).json()
    assert failed["error"]["message"].startswith("The server is shutting down")
    assert failed["output"][0]["content"][0]["text"] == "Hel"
    assert again[-1]["code"] == "server_shutdown"
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "server_shutdown")
    assert (whole["status"], whole["output"][0]["content"][0]["text"]) == ("completed", "Hello")
    assert not daemon.supervisor.open_leases


async def test_when_the_daemon_stops_a_response_ends_with_its_last_follower() -> None:
    daemon = FakeDaemon(FakeSupervisor([TextDelta("Hel")]))
    app = daemon.app()
    async with connection(app) as client:
        begun = (await client.post("/v1/responses", json=ASKED)).json()["id"]
        async with client.stream("GET", f"/v1/responses/{begun}", params={"stream": "true"}) as stream:
            await line_with(stream.aiter_lines(), "Hel")
            app.stop()
        assert (await until(client, begun, "failed"))["error"]["message"].startswith("The server is shutting down")
    assert not daemon.supervisor.open_leases
