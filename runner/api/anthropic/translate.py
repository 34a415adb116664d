"""The Anthropic dialect's requests as calls. Pure functions."""

from __future__ import annotations

import json

from runner.api.anthropic.messages import read_system, read_turns
from runner.api.anthropic.schema import MessagesBody, PromptBody, ToolChoiceBody
from runner.chat.types import Tool, ToolUse, is_begun
from runner.errors import InvalidRequest
from runner.generate import Call, Conversation
from runner.sampling import Constraint, ConstraintKind

_OPTIONS = ("temperature", "top_p", "top_k", "seed")
_THINKING = {"enabled": True, "adaptive": True, "between_tools": True, "disabled": False}
_EFFORTS = {"xhigh": "high", "max": "high"}


def prompt_call(body: PromptBody, request_id: str) -> Call:
    """The part of a call that decides the prompt. Raises InvalidRequest or Unsupported."""
    tools = read_tools(body)
    choice = body.tool_choice
    if choice is not None and choice.type in ("any", "tool") and not tools:
        raise InvalidRequest("tool_choice asks for a tool, and there are none.", "tool_choice")
    named = choice.name if choice is not None and choice.type == "tool" else None
    if choice is not None and choice.type == "tool" and named not in {tool.name for tool in tools}:
        raise InvalidRequest("tool_choice.name is not one of the tools.", "tool_choice.name")
    effort = body.output_config.effort if body.output_config else None
    messages = (*read_system(body.system), *read_turns(body.messages))
    return Call(
        request_id=request_id,
        model=body.model,
        prompt=Conversation(messages=messages, tools=tools, continues=is_begun(messages)),
        options_path="",
        thinking=_THINKING[body.thinking.type] if body.thinking else None,
        effort=_EFFORTS.get(effort, effort) if effort else None,
        thinking_field="thinking",
        effort_field="output_config.effort",
        may_think_in_vain=True,
        tool_use={"any": ToolUse.REQUIRED, "tool": ToolUse.REQUIRED, "none": ToolUse.NONE}.get(
            choice.type if choice else "auto", ToolUse.AUTO
        ),
        named_tool=named,
        parallel_calls=_parallel_calls(choice),
        constraint=_constraint(body),
    )


def messages_options(body: MessagesBody) -> dict[str, object]:
    """The options of an answer, under the names that all dialects share."""
    options = {name: value for name in _OPTIONS if (value := getattr(body, name)) is not None}
    options["num_predict"] = body.max_tokens
    if body.stop_sequences:
        options["stop"] = body.stop_sequences
    if body.deterministic is not None:
        options["deterministic"] = body.deterministic
    return options


def read_tools(body: PromptBody) -> tuple[Tool, ...]:
    tools = []
    for index, tool in enumerate(body.tools or ()):
        if not tool.name.strip():
            raise InvalidRequest(f"tools[{index}].name must not be empty.", f"tools[{index}].name")
        tools.append(Tool(tool.name, tool.input_schema, tool.description or ""))
    if len({tool.name for tool in tools}) < len(tools):
        raise InvalidRequest("Two tools have the same name.", "tools")
    return tuple(tools)


def _parallel_calls(choice: ToolChoiceBody | None) -> bool | None:
    if choice is None or choice.disable_parallel_tool_use is None:
        return None
    return not choice.disable_parallel_tool_use


def _constraint(body: PromptBody) -> Constraint | None:
    wanted = body.output_config.format if body.output_config else None
    if wanted is None:
        return None
    return Constraint(ConstraintKind.JSON_SCHEMA, json.dumps(wanted.schema_), "output_config.format.schema")
