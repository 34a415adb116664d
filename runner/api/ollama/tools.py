"""Conversations with tools in the Ollama dialect: what clients send, and how calls are told. Pure functions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Literal

from runner.api.media_parts import at_marks
from runner.api.ollama.schema import Message as MessageBody
from runner.api.ollama.schema import NamedTool, ToolBody
from runner.chat.types import Message, Tool, ToolCall, ToolUse
from runner.errors import InvalidRequest

IMAGE_MARK = "[img]"
"""In a text: where the next of its images belongs."""

Json = dict[str, object]


def read_messages(bodies: Sequence[MessageBody]) -> tuple[Message, ...]:
    names: dict[str, str] = {}
    messages = []
    for place, body in enumerate(bodies):
        calls = tuple(
            ToolCall(
                call.id or f"call_{place}_{index}",
                call.function.name,
                json.dumps(call.function.arguments, ensure_ascii=False),
            )
            for index, call in enumerate(body.tool_calls or ())
        )
        names |= {call.id: call.name for call in calls}
        content, media = at_marks(body.content or "", body.images or (), f"messages[{place}].images", IMAGE_MARK)
        messages.append(
            Message(
                body.role,
                content,
                thinking=body.thinking or None,
                tool_calls=calls,
                tool_name=body.tool_name or names.get(body.tool_call_id or ""),
                tool_call_id=body.tool_call_id or None,
                media=media,
            )
        )
    return tuple(messages)


def read_tools(bodies: Sequence[ToolBody]) -> tuple[Tool, ...]:
    """Raises InvalidRequest for names that are empty or come twice."""
    for index, body in enumerate(bodies):
        if not body.function.name.strip():
            raise InvalidRequest("A tool needs a name.", f"tools[{index}].function.name")
    tools = tuple(
        Tool(
            body.function.name,
            body.function.parameters or {"type": "object", "properties": {}},
            body.function.description or "",
        )
        for body in bodies
    )
    if len({tool.name for tool in tools}) < len(tools):
        raise InvalidRequest("Two tools have the same name.", "tools")
    return tools


def choose_tools(
    tools: tuple[Tool, ...], choice: Literal["auto", "none", "required"] | NamedTool | None
) -> tuple[ToolUse, str | None]:
    """What is asked of the model, and the one tool that it must call. Raises InvalidRequest."""
    if isinstance(choice, NamedTool):
        name = choice.function.name
        if name not in {tool.name for tool in tools}:
            raise InvalidRequest(f"tool_choice names {name!a}, which is not among the tools.", "tool_choice")
        return ToolUse.REQUIRED, name
    use = ToolUse(choice or "auto")
    if use is ToolUse.REQUIRED and not tools:
        raise InvalidRequest("tool_choice is required, and there are no tools.", "tool_choice")
    return use, None


def call_record(index: int, call: ToolCall) -> Json | str:
    """A call as a record's entry; one whose arguments were cut off, which this dialect cannot tell, as text."""
    arguments = call.parsed()
    if arguments is None:
        return f"{call.name}({call.arguments}"
    return {"id": call.id, "function": {"index": index, "name": call.name, "arguments": arguments}}
