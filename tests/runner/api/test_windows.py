"""What a client is told of windows when its prompt does not fit, in every dialect."""

from __future__ import annotations

from typing import Any, cast

import pytest

from runner.chat.types import Failed
from runner.supervisor.types import ModelSpec, ModelState, ModelStatus
from tests.fakes import LOADED, FakeModel, FakeSupervisor
from tests.runner.api.serving import FakeDaemon

TURN = [{"role": "user", "content": "Hello"}]
BODIES: dict[str, dict[str, Any]] = {
    "/api/chat": {"messages": TURN},
    "/api/generate": {"prompt": "Hello"},
    "/api/render": {"messages": TURN},
    "/v1/chat/completions": {"messages": TURN},
    "/v1/completions": {"prompt": ["Hello", "Hi"]},
    "/v1/responses": {"input": "Hello"},
    "/v1/messages": {"messages": TURN, "max_tokens": 9},
}


def row() -> ModelStatus:
    spec = cast("ModelSpec", type("Spec", (), {"weights_digest": str(FakeModel().model_digest)}))
    return ModelStatus(spec, ModelState.READY, LOADED, None, 1, 0, None, None, largest_context=6000)


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("path", BODIES)
async def test_too_long_a_prompt_is_told_the_largest_window_there_is_memory_for(path: str, streams: bool) -> None:
    facts = {"prompt_tokens": 9000, "context_length": 4096}
    daemon = FakeDaemon(FakeSupervisor([Failed("context_length_exceeded", "Too long.", {**facts})]))
    daemon.supervisor.rows = [row()]
    body = {"model": "m", **BODIES[path]} | ({} if path == "/api/render" else {"stream": streams})
    async with daemon.client() as client:
        answer = await client.post(path, json=body)
    told = answer.json()
    error = told["error"] if isinstance(told["error"], dict) else told
    assert answer.status_code == 400
    assert error["code"] == "context_length_exceeded"
    assert {name: error[name] for name in (*facts, "largest_context_length")} == {
        **facts,
        "largest_context_length": 6000,
    }


@pytest.mark.parametrize("rows", [[], [row()]], ids=["not told of", "loaded"])
async def test_a_prompt_is_counted_even_where_no_window_holds_it(rows: list[ModelStatus]) -> None:
    body = {"model": "m", "messages": TURN}
    facts: dict[str, Any] = {"prompt_tokens": 9000, "context_length": 4096}
    answers = []
    for more in ({}, {"at_least": True}):
        daemon = FakeDaemon(FakeSupervisor([Failed("context_length_exceeded", "Too long.", facts | more)]))
        daemon.supervisor.rows = rows
        async with daemon.client() as client:
            answers.append(await client.post("/v1/messages/count_tokens", json=body))
    counted, guessed = answers
    assert (counted.status_code, counted.json()) == (200, {"input_tokens": 9000})
    assert (guessed.status_code, guessed.json()["error"]["code"]) == (400, "context_length_exceeded")
