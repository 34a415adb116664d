"""Tools and their calls in the OpenAI dialect: what clients send, and what it means. Pure functions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from runner.api.openai.custom_tools import CustomBody, arguments_of, custom_tool
from runner.api.validation import Body, Ignored, known
from runner.chat.types import Tool, ToolCall, ToolUse
from runner.errors import InvalidRequest

known_tool = known("tools", "function", "custom")


def tool_tag(value: object) -> str:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return f"{kind or 'function'}_tool"


class FunctionBody(Body):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: Ignored = None


class FunctionTool(Body):
    type: Literal["function"]
    function: FunctionBody


class CustomTool(Body):
    type: Literal["custom"]
    custom: CustomBody


ToolBody = Annotated[
    Annotated[
        Annotated[FunctionTool, Tag("function_tool")] | Annotated[CustomTool, Tag("custom_tool")],
        Discriminator(tool_tag),
    ],
    known_tool,
]


class ToolName(Body):
    name: str


class NamedTool(Body):
    type: Literal["function"]
    function: ToolName


class NamedCustomTool(Body):
    type: Literal["custom"]
    custom: ToolName


AnyNamedTool = Annotated[NamedTool | NamedCustomTool, Field(discriminator="type")]


class AllowedTools(Body):
    mode: Literal["auto", "required"]
    tools: list[AnyNamedTool]


class AllowedToolsChoice(Body):
    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


ToolChoice = Literal["none", "auto", "required"] | NamedTool | NamedCustomTool | AllowedToolsChoice | None


class CalledFunction(Body):
    name: str
    arguments: str


class CalledTool(Body):
    name: str
    input: str


class FunctionCallBody(Body):
    id: str
    type: Literal["function"] = "function"
    function: CalledFunction
    index: Ignored = None


class CustomCallBody(Body):
    id: str
    type: Literal["custom"]
    custom: CalledTool
    index: Ignored = None


ToolCallBody = Annotated[
    Annotated[
        Annotated[FunctionCallBody, Tag("function_tool")] | Annotated[CustomCallBody, Tag("custom_tool")],
        Discriminator(tool_tag),
    ],
    known("calls", "function", "custom", default="function"),
]


def read_tools(bodies: Sequence[FunctionTool | CustomTool] | None) -> tuple[Tool, ...]:
    """Raises InvalidRequest for names that are empty or come twice, and for formats that cannot be kept to."""
    return unlike_tools(
        function_tool(body.function, f"tools[{index}].function")
        if isinstance(body, FunctionTool)
        else custom_tool(
            named(body.custom.name, f"tools[{index}].custom"),
            body.custom.description,
            body.custom.format,
            f"tools[{index}].custom",
        )
        for index, body in enumerate(bodies or ())
    )


def function_tool(function: FunctionBody, field: str) -> Tool:
    """Raises InvalidRequest for an empty name."""
    schema = function.parameters or {"type": "object", "properties": {}}
    return Tool(named(function.name, field), schema, function.description or "")


def unlike_tools(tools: Iterable[Tool], field: str = "tools") -> tuple[Tool, ...]:
    """The tools; raises InvalidRequest when two have one name."""
    made = tuple(tools)
    if len({tool.name for tool in made}) < len(made):
        raise InvalidRequest("Two tools have the same name.", field)
    return made


def named(name: str, field: str) -> str:
    """A tool's name; raises InvalidRequest for an empty one."""
    if not name.strip():
        raise InvalidRequest("A tool needs a name.", f"{field}.name")
    return name


@dataclass(frozen=True, slots=True)
class ChosenTools:
    """The tools that are left by a choice, what is asked of the model, and the one tool it must call."""

    tools: tuple[Tool, ...]
    use: ToolUse
    named: str | None = None


def choose_tools(tools: tuple[Tool, ...], choice: ToolChoice) -> ChosenTools:
    """Raises InvalidRequest for a choice among tools that were not given."""
    if choice is None or isinstance(choice, str):
        use = ToolUse(choice or "auto")
        if use is ToolUse.REQUIRED and not tools:
            raise InvalidRequest("tool_choice is required, and there are no tools.", "tool_choice")
        return ChosenTools(tools, use)
    wanted = choice.allowed_tools.tools if isinstance(choice, AllowedToolsChoice) else [choice]
    names = {(one.function if isinstance(one, NamedTool) else one.custom).name for one in wanted}
    if unknown := names - {tool.name for tool in tools}:
        raise InvalidRequest(f"tool_choice names {sorted(unknown)[0]!a}, which is not among the tools.", "tool_choice")
    if not isinstance(choice, AllowedToolsChoice):
        return ChosenTools(tools, ToolUse.REQUIRED, names.pop())
    if not names:
        raise InvalidRequest("tool_choice allows no tools.", "tool_choice.allowed_tools.tools")
    return ChosenTools(tuple(tool for tool in tools if tool.name in names), ToolUse(choice.allowed_tools.mode))


def read_calls(bodies: Sequence[FunctionCallBody | CustomCallBody] | None, path: str) -> tuple[ToolCall, ...]:
    """Earlier calls of the model. Raises InvalidRequest for arguments that are no JSON object."""
    calls = []
    for index, body in enumerate(bodies or ()):
        if isinstance(body, CustomCallBody):
            calls.append(ToolCall(body.id, body.custom.name, arguments_of(body.custom.input)))
        else:
            arguments = read_arguments(body.function.arguments, f"{path}[{index}].function.arguments")
            calls.append(ToolCall(body.id, body.function.name, arguments))
    return tuple(calls)


def read_arguments(text: str, field: str) -> str:
    """Raises InvalidRequest when a call's arguments are no JSON object."""
    arguments = text.strip() or "{}"
    try:
        is_object = isinstance(json.loads(arguments), dict)
    except (ValueError, RecursionError):
        is_object = False
    if not is_object:
        raise InvalidRequest(f"invalid tool call arguments: {field} is not the text of a JSON object.", field)
    return arguments
