"""Requests of the Anthropic dialect that are wrong: the field is named, and nothing is passed over in silence."""

from __future__ import annotations

from typing import Any

import pytest

from runner.chat.types import ToolUse
from tests.fakes import FakeSupervisor, answer
from tests.runner.api.serving import FakeDaemon

TURN: dict[str, Any] = {"role": "user", "content": "Hello"}
TOOL: dict[str, Any] = {"name": "f", "input_schema": {"type": "object"}}
BODY: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": [TURN]}


def asked(block: dict[str, Any], role: str = "user") -> dict[str, Any]:
    return {"messages": [TURN, {"role": role, "content": [block]}]}


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"max_tokens": 0}, "invalid_request", "max_tokens"),
        ({"messages": []}, "invalid_request", "messages"),
        ({"stop_sequences": ["a", ""]}, "invalid_request", "stop_sequences[1]"),
        ({"stop_sequences": ["a"] * 257}, "invalid_request", "stop_sequences"),
        ({"tool_choice": {"type": "any"}}, "invalid_request", "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool"}}, "invalid_request", "tool_choice.name"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "g"}}, "invalid_request", "tool_choice.name"),
        ({"tools": [TOOL], "tool_choice": {"type": "any", "name": "f"}}, "invalid_request", "tool_choice.name"),
        ({"tools": [TOOL], "tool_choice": {"type": "none", "name": "f"}}, "invalid_request", "tool_choice.name"),
        ({"tools": [TOOL, TOOL]}, "invalid_request", "tools"),
        ({"tools": [TOOL | {"name": " "}]}, "invalid_request", "tools[0].name"),
        ({"tools": [TOOL | {"type": "bash_20250124"}]}, "unsupported", "tools[0].type"),
        (asked({"type": "odd"}), "unsupported", "messages[1].content[0].type"),
        (asked({"type": "image", "source": {"type": "url", "url": "https://x"}}), "unsupported",
         "messages[1].content[0].source.type"),
        (asked({"type": "document", "source": {"type": "file", "file_id": "x"}}), "unsupported",
         "messages[1].content[0].source.type"),
        (asked({"type": "tool_result", "tool_use_id": "1"}, "assistant"), "invalid_request",
         "messages[1].content[0].type"),
        (asked({"type": "tool_use", "id": "1", "name": "f", "input": {}}), "invalid_request",
         "messages[1].content[0].type"),
        (asked({"type": "tool_use", "id": "1", "name": "f", "input": {}}, "assistant"), "invalid_request",
         "messages[1].content"),
        ({"thread": "t"}, "unsupported", "thread"),
        ({"nope": 1}, "invalid_request", "nope"),
    ],
)  # fmt: skip
async def test_a_wrong_field_is_named(changes: dict[str, Any], code: str, field: str) -> None:
    daemon = FakeDaemon(FakeSupervisor(answer("Hi")))
    async with daemon.client() as client:
        told = await client.post("/v1/messages", json=BODY | changes)
    error = told.json()["error"]
    assert (told.status_code, error["code"], error["field"]) == (400, code, field)
    assert daemon.supervisor.requests == {}


@pytest.mark.parametrize(
    ("choice", "use", "named", "parallel"),
    [
        (None, ToolUse.AUTO, None, None),
        ({"type": "auto", "disable_parallel_tool_use": True}, ToolUse.AUTO, None, False),
        ({"type": "any", "disable_parallel_tool_use": False}, ToolUse.REQUIRED, None, True),
        ({"type": "tool", "name": "f"}, ToolUse.REQUIRED, "f", None),
        ({"type": "none"}, ToolUse.NONE, None, None),
    ],
)
async def test_a_choice_of_tools_reaches_the_model(
    choice: dict[str, Any] | None, use: ToolUse, named: str | None, parallel: bool | None
) -> None:
    daemon = FakeDaemon(FakeSupervisor(answer("Hi")))
    async with daemon.client() as client:
        told = await client.post("/v1/messages", json=BODY | {"tools": [TOOL], "tool_choice": choice})
    request = daemon.supervisor.request
    assert told.status_code == 200
    assert (request.tool_use, request.named_tool, request.parallel_calls) == (use, named, parallel)
