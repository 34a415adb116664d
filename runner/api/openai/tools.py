"""Tools and their calls in the OpenAI dialect: what clients send, and what it means. Pure functions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from runner.api.validation import Body, Ignored, lacks, unsupported
from runner.chat.types import Tool, ToolCall, ToolUse
from runner.errors import InvalidRequest

_CUSTOM = lacks("custom tools, only functions")


class FunctionBody(Body):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: Ignored = None


def _only_functions(value: object) -> object:
    if value == "custom":
        raise unsupported(_CUSTOM)
    return value


Function = Annotated[Literal["function"], BeforeValidator(_only_functions)]


class ToolBody(Body):
    type: Function
    function: FunctionBody


class FunctionName(Body):
    name: str


class NamedTool(Body):
    type: Function
    function: FunctionName


class AllowedTools(Body):
    mode: Literal["auto", "required"]
    tools: list[NamedTool]


class AllowedToolsChoice(Body):
    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


def _read_choice(value: object) -> object:
    if isinstance(value, dict) and value.get("type") == "custom":
        raise unsupported(_CUSTOM, ".type")
    return value


ToolChoice = Annotated[
    Literal["none", "auto", "required"] | NamedTool | AllowedToolsChoice | None, BeforeValidator(_read_choice)
]


class CalledFunction(Body):
    name: str
    arguments: str


class ToolCallBody(Body):
    id: str
    type: Function = "function"
    function: CalledFunction
    index: Ignored = None


def read_tools(bodies: Sequence[ToolBody] | None) -> tuple[Tool, ...]:
    """Raises InvalidRequest for names that are empty or come twice."""
    return read_functions([body.function for body in bodies or ()], ".function.name")


def read_functions(functions: Sequence[FunctionBody], name_path: str) -> tuple[Tool, ...]:
    """As `read_tools`; `name_path` leads from a tool to its name in the client's request."""
    tools = []
    for index, function in enumerate(functions):
        if not function.name.strip():
            raise InvalidRequest("A tool needs a name.", f"tools[{index}]{name_path}")
        schema = function.parameters or {"type": "object", "properties": {}}
        tools.append(Tool(function.name, schema, function.description or ""))
    if len({tool.name for tool in tools}) < len(tools):
        raise InvalidRequest("Two tools have the same name.", "tools")
    return tuple(tools)


def choose_tools(
    tools: tuple[Tool, ...], choice: Literal["none", "auto", "required"] | NamedTool | AllowedToolsChoice | None
) -> tuple[tuple[Tool, ...], ToolUse, str | None]:
    """The tools that are left by a choice, what is asked of the model, and the one tool it must call.

    Raises InvalidRequest for a choice among tools that were not given.
    """
    if choice is None or isinstance(choice, str):
        use = ToolUse(choice or "auto")
        if use is ToolUse.REQUIRED and not tools:
            raise InvalidRequest("tool_choice is required, and there are no tools.", "tool_choice")
        return tools, use, None
    wanted = [choice] if isinstance(choice, NamedTool) else choice.allowed_tools.tools
    names = {one.function.name for one in wanted}
    if unknown := names - {tool.name for tool in tools}:
        raise InvalidRequest(f"tool_choice names {sorted(unknown)[0]!a}, which is not among the tools.", "tool_choice")
    if isinstance(choice, NamedTool):
        return tools, ToolUse.REQUIRED, choice.function.name
    if not names:
        raise InvalidRequest("tool_choice allows no tools.", "tool_choice.allowed_tools.tools")
    return tuple(tool for tool in tools if tool.name in names), ToolUse(choice.allowed_tools.mode), None


def read_calls(bodies: Sequence[ToolCallBody] | None, path: str) -> tuple[ToolCall, ...]:
    """Earlier calls of the model. Raises InvalidRequest for arguments that are no JSON object."""
    calls = []
    for index, body in enumerate(bodies or ()):
        arguments = body.function.arguments.strip() or "{}"
        try:
            is_object = isinstance(json.loads(arguments), dict)
        except (ValueError, RecursionError):
            is_object = False
        if not is_object:
            where = f"{path}[{index}].function.arguments"
            raise InvalidRequest(f"invalid tool call arguments: {where} is not the text of a JSON object.", where)
        calls.append(ToolCall(body.id, body.function.name, arguments))
    return tuple(calls)
