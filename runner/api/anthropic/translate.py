"""The Anthropic dialect's requests as calls. Pure functions."""

from __future__ import annotations

import json
from collections.abc import Sequence

from runner.api.anthropic.messages import read_system, read_turns
from runner.api.anthropic.schema import MessagesBody, PromptBody, ToolChoiceBody
from runner.calls import Call, Conversation
from runner.chat.types import Tool, ToolUse, is_begun
from runner.errors import InvalidRequest
from runner.sampling import Constraint, ConstraintKind

_OPTIONS = ("temperature", "top_p", "top_k", "seed")
_TOOL_USES = {"auto": ToolUse.AUTO, "any": ToolUse.REQUIRED, "tool": ToolUse.REQUIRED, "none": ToolUse.NONE}
_THINKING = {"enabled": True, "adaptive": True, "between_tools": True, "disabled": False}
_EFFORTS = {"xhigh": "high", "max": "high"}


def prompt_call(body: PromptBody, request_id: str) -> Call:
    """The part of a call that decides the prompt. Raises InvalidRequest or Unsupported."""
    tools = read_tools(body)
    choice = body.tool_choice or ToolChoiceBody(type="auto")
    _check_choice(choice, tools)
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
        tool_use=_TOOL_USES[choice.type],
        named_tool=choice.name,
        parallel_calls=None if choice.disable_parallel_tool_use is None else not choice.disable_parallel_tool_use,
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


def _check_choice(choice: ToolChoiceBody, tools: Sequence[Tool]) -> None:
    if _TOOL_USES[choice.type] is ToolUse.REQUIRED and not tools:
        raise InvalidRequest("tool_choice asks for a tool, and there are none.", "tool_choice")
    if choice.type == "tool" and choice.name not in {tool.name for tool in tools}:
        raise InvalidRequest("tool_choice.name is not one of the tools.", "tool_choice.name")
    if choice.type != "tool" and choice.name is not None:
        raise InvalidRequest('tool_choice.name goes with the type "tool" only.', "tool_choice.name")


def _constraint(body: PromptBody) -> Constraint | None:
    wanted = body.output_config.format if body.output_config else None
    if wanted is None:
        return None
    return Constraint(ConstraintKind.JSON_SCHEMA, json.dumps(wanted.schema_), "output_config.format.schema")
