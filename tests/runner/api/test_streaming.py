"""Answers that grow while they are sent, over a real socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from runner.api.streaming import NDJSON, StreamResponse
from runner.chat.types import ChatPrompt, Failed, TextDelta
from tests.fakes import PATIENCE, FakeSupervisor, answer, finished
from tests.runner.api.serving import FakeDaemon, connection

USER = [{"role": "user", "content": "Hello"}]
REQUESTS: dict[str, dict[str, Any]] = {
    "/api/chat": {"model": "m", "messages": USER},
    "/api/generate": {"model": "m", "prompt": "Hello"},
    "/v1/chat/completions": {"model": "m", "messages": USER, "stream": True},
}
STREAMS = pytest.mark.parametrize("path", REQUESTS)


async def next_line(lines: AsyncIterator[str]) -> str:
    async with asyncio.timeout(PATIENCE):
        while not (line := await anext(lines)):
            pass
        return line


@STREAMS
async def test_text_arrives_while_the_model_still_answers(path: str) -> None:
    daemon = FakeDaemon(FakeSupervisor([TextDelta("first")]))
    async with connection(daemon.app()) as client, client.stream("POST", path, json=REQUESTS[path]) as response:
        lines = response.aiter_lines()
        assert "first" in await next_line(lines)
        daemon.supervisor.send(TextDelta("second"))
        assert "second" in await next_line(lines)
        daemon.supervisor.send(finished())
        rest = [line async for line in lines if line]
    assert rest
    assert not daemon.supervisor.cancelled
    assert not daemon.supervisor.open_leases


@STREAMS
async def test_a_client_that_leaves_a_stream_cancels_it(path: str) -> None:
    daemon = FakeDaemon(FakeSupervisor([TextDelta("first")]))
    async with connection(daemon.app()) as client:
        async with client.stream("POST", path, json=REQUESTS[path]) as response:
            await next_line(response.aiter_lines())
        await daemon.supervisor.until(lambda fake: fake.cancelled)
        assert daemon.supervisor.cancelled == list(daemon.supervisor.requests)
        assert not daemon.supervisor.open_leases


@STREAMS
async def test_a_client_that_leaves_before_an_unstreamed_answer_cancels_it(path: str) -> None:
    daemon = FakeDaemon(FakeSupervisor([TextDelta("first")]))
    async with connection(daemon.app()) as client:
        asking = asyncio.create_task(client.post(path, json=REQUESTS[path] | {"stream": False}))
        await daemon.supervisor.until(lambda fake: fake.requests)
        await leave(asking)
        await daemon.supervisor.until(lambda fake: fake.cancelled)
        assert not daemon.supervisor.open_leases


@STREAMS
@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_while_the_model_loads_gives_its_place_up(path: str, stream: bool) -> None:
    daemon = FakeDaemon()
    daemon.supervisor.lease_gate.clear()
    async with connection(daemon.app()) as client:
        asking = asyncio.create_task(client.post(path, json=REQUESTS[path] | {"stream": stream}))
        await daemon.supervisor.until(lambda fake: fake.specs)
        await leave(asking)
        await daemon.supervisor.until(lambda fake: fake.given_up_leases)
        assert not daemon.supervisor.requests


async def test_a_client_that_leaves_before_the_first_text_cancels_its_request() -> None:
    daemon = FakeDaemon()
    async with connection(daemon.app()) as client:
        asking = asyncio.create_task(client.post("/api/chat", json=REQUESTS["/api/chat"]))
        await daemon.supervisor.until(lambda fake: fake.requests)
        await leave(asking)
        await daemon.supervisor.until(lambda fake: fake.cancelled)


async def test_a_client_that_leaves_an_empty_request_stops_waiting_for_the_load() -> None:
    daemon = FakeDaemon()
    daemon.supervisor.lease_gate.clear()
    async with connection(daemon.app()) as client:
        asking = asyncio.create_task(client.post("/api/generate", json={"model": "m"}))
        await daemon.supervisor.until(lambda fake: fake.specs)
        await leave(asking)
        await daemon.supervisor.until(lambda fake: fake.given_up_leases)


async def leave(asking: asyncio.Task[httpx.Response]) -> None:
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_one_client_leaving_disturbs_nobody_else() -> None:
    daemon = FakeDaemon(FakeSupervisor([TextDelta("first")]))
    body = REQUESTS["/api/chat"]
    async with (
        connection(daemon.app()) as client,
        httpx.AsyncClient(base_url=client.base_url, timeout=PATIENCE) as other,
        client.stream("POST", "/api/chat", json=body) as staying,
    ):
        lines = staying.aiter_lines()
        await next_line(lines)
        (staying_id,) = daemon.supervisor.requests
        async with other.stream("POST", "/api/chat", json=body) as leaving:
            await next_line(leaving.aiter_lines())
        await daemon.supervisor.until(lambda fake: fake.cancelled)
        assert staying_id not in daemon.supervisor.cancelled
        daemon.supervisor.send_to(staying_id, TextDelta("more"), finished())
        assert "more" in await next_line(lines)


@STREAMS
async def test_an_error_before_any_text_is_a_status(path: str) -> None:
    daemon = FakeDaemon(FakeSupervisor([Failed("context_length_exceeded", "Too long.", {"prompt_tokens": 9})]))
    async with daemon.client() as client:
        response = await client.post(path, json=REQUESTS[path])
    assert response.status_code == 400
    told = response.json()
    assert told.get("code") or told["error"]["code"] == "context_length_exceeded"
    assert not daemon.supervisor.open_leases


@STREAMS
async def test_an_error_after_text_ends_the_stream_without_a_clean_end(path: str) -> None:
    daemon = FakeDaemon(FakeSupervisor([TextDelta("Hi"), Failed("engine_crashed", "It died.")]))
    async with daemon.client() as client:
        response = await client.post(path, json=REQUESTS[path])
    records = [line.removeprefix("data: ") for line in response.text.splitlines() if line]
    assert response.status_code == 200
    assert len(records) == 2
    last: Any = json.loads(records[-1])
    assert "engine_crashed" in (last.get("code"), last["error"]["code"] if isinstance(last["error"], dict) else None)
    assert "[DONE]" not in response.text and '"done":true' not in response.text


@STREAMS
async def test_a_dead_worker_in_mid_stream_is_told_and_the_next_request_works(path: str) -> None:
    daemon = FakeDaemon(FakeSupervisor([TextDelta("first")]))
    async with connection(daemon.app()) as client:
        async with client.stream("POST", path, json=REQUESTS[path]) as response:
            lines = response.aiter_lines()
            await next_line(lines)
            daemon.supervisor.send(Failed("engine_crashed", "It died."))
            assert "engine_crashed" in await next_line(lines)
        daemon.supervisor.script = lambda _: answer("again")
        again = await client.post(path, json=REQUESTS[path])
    assert "again" in again.text


async def test_a_slow_reader_pauses_its_own_request() -> None:
    daemon = FakeDaemon(FakeSupervisor([TextDelta("first")]))
    async with connection(daemon.app()) as client, client.stream("POST", "/api/chat", json=REQUESTS["/api/chat"]):
        text = "x" * 10_000
        while not daemon.supervisor.paused:
            daemon.supervisor.send(*[TextDelta(text)] * 100)
            await asyncio.sleep(0)
        assert daemon.supervisor.paused == list(daemon.supervisor.requests)


class EndlessSource:
    """Gives one event and then waits."""

    def __init__(self) -> None:
        self.is_waiting = asyncio.Event()
        self.is_closed = False
        self._given = False

    def __aiter__(self) -> EndlessSource:
        return self

    async def __anext__(self) -> bytes:
        if self._given:
            self.is_waiting.set()
            await asyncio.Event().wait()
        self._given = True
        return b"one"

    async def aclose(self) -> None:
        self.is_closed = True


async def test_a_server_that_gives_a_request_up_closes_its_source() -> None:
    source = EndlessSource()
    sent: list[Any] = []

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    response = StreamResponse(source, bytes, lambda error: b"error", NDJSON)
    serving = asyncio.create_task(response({"type": "http"}, receive, send))
    await source.is_waiting.wait()
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert source.is_closed
    assert [message.get("body") for message in sent] == [None, b"one"]


async def test_a_reader_that_takes_nothing_any_more_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.api.streaming.STALLED_SECONDS", 0.05)
    source = EndlessSource()
    never = asyncio.Event()

    async def wait(*_: Any) -> Any:
        await never.wait()

    async with asyncio.timeout(PATIENCE):
        await StreamResponse(source, bytes, lambda error: b"error", NDJSON)({"type": "http"}, wait, wait)
    assert source.is_closed


async def test_two_requests_may_carry_the_same_id() -> None:
    daemon = FakeDaemon(FakeSupervisor([TextDelta("first")]))
    headers = {"x-request-id": "mine"}
    body = REQUESTS["/api/chat"]
    async with (
        connection(daemon.app()) as client,
        client.stream("POST", "/api/chat", json=body, headers=headers) as first,
        client.stream("POST", "/api/chat", json=body, headers=headers) as second,
    ):
        assert first.headers["x-request-id"] == second.headers["x-request-id"] == "mine"
        assert len(daemon.supervisor.requests) == 2


async def test_a_broken_encoder_is_told_as_internal_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    daemon = FakeDaemon(FakeSupervisor())
    daemon.supervisor.lease_error = ZeroDivisionError("/secret/path")
    async with daemon.client() as client:
        response = await client.post("/api/chat", json=REQUESTS["/api/chat"])
    assert response.status_code == 500
    assert response.json()["code"] == "internal"
    assert "secret" not in response.text
    assert "/secret/path" in caplog.text
    assert response.headers["x-request-id"] in caplog.text


async def test_the_prompt_reaches_the_worker_as_it_was_sent() -> None:
    daemon = FakeDaemon(FakeSupervisor(answer("Hi")))
    async with daemon.client() as client:
        await client.post("/api/chat", json=REQUESTS["/api/chat"])
    prompt = daemon.supervisor.request.prompt
    assert isinstance(prompt, ChatPrompt)
    assert [(message.role, message.content) for message in prompt.messages] == [("user", "Hello")]
