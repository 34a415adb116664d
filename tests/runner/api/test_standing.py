"""How urgent a request is, in every dialect."""

from __future__ import annotations

from typing import Any

import pytest

from runner.chat.types import ChatEvent, Finished, FinishReason, Priority, TextDelta, Usage
from runner.tasks import Detokenized, Tokenized
from tests.fakes import FakeSupervisor
from tests.runner.api.serving import FakeDaemon

TURN = [{"role": "user", "content": "Hello"}]
BODIES: dict[str, dict[str, Any]] = {
    "/api/chat": {"messages": TURN},
    "/api/generate": {"prompt": "Hello"},
    "/v1/chat/completions": {"messages": TURN},
    "/v1/completions": {"prompt": "Hello"},
    "/v1/responses": {"input": "Hello"},
    "/v1/messages": {"messages": TURN, "max_tokens": 9},
}
ANSWER: list[ChatEvent] = [TextDelta("Hi"), Finished(FinishReason.STOP, Usage(1, 0, 1, 1, 1, 1), seed=1)]


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("told", [None, "background", "Interactive"])
async def test_the_header_says_who_may_wait(path: str, told: str | None) -> None:
    daemon = FakeDaemon(FakeSupervisor(ANSWER))
    headers = {} if told is None else {"X-Puna-Priority": told}
    async with daemon.client() as client:
        answer = await client.post(path, json={"model": "m", "stream": False, **BODIES[path]}, headers=headers)
    assert answer.status_code == 200, answer.text
    assert daemon.supervisor.request.priority is Priority((told or "interactive").lower())


@pytest.mark.parametrize("path", BODIES)
async def test_an_urgency_that_is_none_is_refused(path: str) -> None:
    async with FakeDaemon(FakeSupervisor(ANSWER)).client() as client:
        body = {"model": "m", "stream": False, **BODIES[path]}
        answer = await client.post(path, json=body, headers={"X-Puna-Priority": "highest"})
    assert answer.status_code == 400


@pytest.mark.parametrize(
    ("path", "body", "event"),
    [
        ("/api/tokenize", {"content": "Hello"}, Tokenized((1, 2))),
        ("/api/detokenize", {"tokens": [1]}, Detokenized("Hello")),
    ],
)
async def test_tasks_take_their_turn_and_say_so(path: str, body: dict[str, Any], event: ChatEvent) -> None:
    supervisor = FakeSupervisor()
    supervisor.task_script = lambda _: [event]
    async with FakeDaemon(supervisor).client() as client:
        plain = await client.post(path, json={"model": "m", **body})
        urgent = await client.post(path, json={"model": "m", **body}, headers={"X-Puna-Priority": "background"})
    assert (plain.status_code, plain.headers.get("X-Puna-Ignored")) == (200, None)
    assert (urgent.status_code, urgent.headers["X-Puna-Ignored"]) == (200, "X-Puna-Priority")
