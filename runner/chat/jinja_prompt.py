"""Prompts made by templates in Jinja, with the variables that published ones are written against."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from jinja2 import Template, TemplateError, TemplateSyntaxError

from runner.chat.budget import Budget
from runner.chat.sandbox import TemplateRefusal, compile_template, rendering_within
from runner.chat.turns import other_shapes
from runner.chat.types import Message, Tool, ToolCall
from runner.errors import InvalidRequest, ModelInvalid

_CACHED_TEMPLATES = 16


class JinjaPrompt:
    """A compiled template. Compiling and rendering take milliseconds and may be done in any thread."""

    def __init__(self, source: str, special_texts: Mapping[str, str]) -> None:
        """Raises ModelInvalid when `source` is not a template."""
        self._template = _compile(source)
        self._special_texts = special_texts

    def render(
        self,
        messages: tuple[Message, ...],
        *,
        thinking: bool | None,
        effort: str | None = None,
        tools: tuple[Tool, ...] = (),
        asks_for_answer: bool = True,
    ) -> str:
        """The conversation, with what makes the model answer it unless that is not wanted.

        What the template refuses as it stands is tried with joined turns, and with the system's words in
        the user's. Raises InvalidRequest when it refuses that too, ModelInvalid when the template itself fails.
        """
        variables: dict[str, Any] = {
            **self._special_texts,
            "add_generation_prompt": asks_for_answer,
            "tools": [_tool(tool) for tool in tools] or None,
            "documents": None,
        }
        if thinking is not None:
            # Templates differ in what they call it.
            variables["enable_thinking"] = variables["thinking"] = thinking
        if effort is not None:
            variables["reasoning_effort"] = effort
        refusals = []
        budget = Budget(_size(messages, tools))
        for shape in (messages, *other_shapes(messages)):
            try:
                with rendering_within(budget):
                    return self._template.render(variables, messages=[_message(message) for message in shape])
            except TemplateRefusal as refusal:
                refusals.append(refusal)
            except Exception as error:  # a template is a stranger's program and may raise anything
                raise ModelInvalid(f"The chat template fails: {_told(error)}") from error
        raise InvalidRequest(
            f"The model's chat template refuses this conversation: {refusals[0]}", field="messages"
        ) from refusals[0]


def _size(messages: tuple[Message, ...], tools: tuple[Tool, ...]) -> int:
    """Characters that a template may rightly write out."""
    calls = sum(len(call.arguments) for message in messages for call in message.tool_calls)
    declared = sum(len(json.dumps(_tool(tool))) for tool in tools)
    return calls + declared + sum(len(message.content) + len(message.thinking or "") for message in messages)


def _message(message: Message) -> dict[str, Any]:
    """A turn under the names that templates look for; what it has not is not there."""
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.thinking:
        turn["thinking"] = turn["reasoning_content"] = message.thinking
    if message.tool_calls:
        turn["tool_calls"] = [_call(call) for call in message.tool_calls]
    if message.tool_name:
        turn["name"] = turn["tool_name"] = message.tool_name
    if message.tool_call_id:
        turn["tool_call_id"] = message.tool_call_id
    return turn


def _call(call: ToolCall) -> dict[str, Any]:
    arguments = call.parsed()
    function = {"name": call.name, "arguments": call.arguments if arguments is None else arguments}
    return {"id": call.id, "type": "function", "function": function}


def _tool(tool: Tool) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.schema}
    return {"type": "function", "function": function}


@lru_cache(maxsize=_CACHED_TEMPLATES)
def _compile(source: str) -> Template:
    try:
        return compile_template(source)
    except TemplateSyntaxError as error:
        message = f"The chat template is not valid Jinja: line {error.lineno}: {error.message}."
        raise ModelInvalid(message, line=error.lineno) from error
    except (TemplateError, RecursionError) as error:
        raise ModelInvalid(f"The chat template cannot be compiled: {_told(error)}") from error


def _told(error: BaseException) -> str:
    text = str(error).strip().rstrip(".")
    return f"{text[:200]}." if text else f"{type(error).__name__}."
