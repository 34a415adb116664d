"""Chats as calls of a model. Pure functions."""

from __future__ import annotations

import dataclasses
from typing import TypeVar

from runner.api.media_parts import MediaPart, join_parts, read_base64, read_image_url
from runner.api.openai.called import CallShape
from runner.api.openai.schema import ChatCompletionBody, ChatMessage, ImagePart, ResponseFormat, TextPart
from runner.api.openai.shaping import chosen_options
from runner.api.openai.tools import (
    ChosenTools,
    CustomTool,
    FunctionBody,
    NamedTool,
    ToolName,
    choose_tools,
    function_tool,
    read_arguments,
    read_calls,
    read_tools,
    unlike_tools,
)
from runner.api.sampling import json_constraint, one_constraint, wanted_logprobs
from runner.calls import Call, Conversation
from runner.chat.media import Media, MediaKind
from runner.chat.types import Message, ToolCall, is_begun
from runner.errors import InvalidRequest
from runner.sampling import Constraint

T = TypeVar("T")

_ROLES = {"developer": "system", "function": "tool"}
"""Other names for the same."""
_EFFORTS = {"none": None, "minimal": "low", "xhigh": "high", "max": "high"}


def chat_calls(body: ChatCompletionBody, request_id: str) -> list[Call]:
    """A call for each answer that is wanted. Raises InvalidRequest for what single fields do not show."""
    call = _chat_call(body, request_id)
    return [dataclasses.replace(call, variant=number) for number in range(body.n or 1)]


def _chat_call(body: ChatCompletionBody, request_id: str) -> Call:
    if not body.messages:
        raise InvalidRequest("[] is too short - 'messages'", "messages")
    options = chosen_options(body)
    longest = _the_one(body.max_completion_tokens, body.max_tokens, "max_completion_tokens", "max_tokens")
    if longest is not None:
        options["num_predict"] = longest
    nested = body.reasoning.effort if body.reasoning else None
    effort = _the_one(body.reasoning_effort, nested, "reasoning_effort", "reasoning.effort")
    messages = _messages(body)
    prompt = Conversation(messages=messages, continues=is_begun(messages))
    return dataclasses.replace(
        conversation_call(request_id, body.model, prompt, _tools(body), effort, "reasoning_effort"),
        options=options,
        parallel_calls=False if body.functions else body.parallel_tool_calls,
        truncate=bool(body.truncate),
        constraint=one_constraint(_json_format(body.response_format), body.grammar),
        logit_bias=tuple((body.logit_bias or {}).items()),
        logprobs=wanted_logprobs(body.logprobs, body.top_logprobs),
        receipt=bool(body.receipt),
    )


def conversation_call(
    request_id: str, model: str, prompt: Conversation, chosen: ChosenTools, effort: str | None, effort_field: str
) -> Call:
    """What chats and responses ask of a model alike; `effort` is in this dialect's words, and in `effort_field`."""
    return Call(
        request_id=request_id,
        model=model,
        prompt=dataclasses.replace(prompt, tools=chosen.tools),
        options_path="",
        thinking=effort != "none" if effort else None,
        thinking_field=effort_field,
        effort=_EFFORTS.get(effort, effort) if effort else None,
        may_think_in_vain=True,
        tool_use=chosen.use,
        named_tool=chosen.named,
    )


def call_shape(body: ChatCompletionBody) -> CallShape:
    """How the calls in the answer are told."""
    custom = frozenset(tool.custom.name for tool in body.tools or () if isinstance(tool, CustomTool))
    return CallShape(custom, is_older=bool(body.functions))


def _tools(body: ChatCompletionBody) -> ChosenTools:
    if body.functions:
        return _functions(body, body.functions)
    if body.function_call is not None and body.tools:
        raise InvalidRequest("function_call is the older form of tool_choice; send tool_choice.", "function_call")
    if isinstance(body.function_call, ToolName):
        raise _not_among_functions(body.function_call)
    return choose_tools(read_tools(body.tools), body.tool_choice)


def _functions(body: ChatCompletionBody, functions: list[FunctionBody]) -> ChosenTools:
    """Tools in the older form, which has a choice of its own and room for one call."""
    if body.tools:
        raise InvalidRequest("functions is the older form of tools; send one of them.", "functions")
    for field in ("tool_choice", "parallel_tool_calls"):
        if getattr(body, field):
            raise InvalidRequest(f"{field} goes with tools, and functions is the older form of them.", field)
    tools = unlike_tools(
        (function_tool(function, f"functions[{index}]") for index, function in enumerate(functions)), "functions"
    )
    choice = body.function_call
    if choice is None or isinstance(choice, str):
        return choose_tools(tools, choice)
    if choice.name not in {tool.name for tool in tools}:
        raise _not_among_functions(choice)
    return choose_tools(tools, NamedTool(type="function", function=choice))


def _not_among_functions(choice: ToolName) -> InvalidRequest:
    message = f"function_call names {choice.name[:100]!a}, which is not among the functions."
    return InvalidRequest(message, "function_call")


def _json_format(wanted: ResponseFormat | None) -> Constraint | None:
    field = "response_format.json_schema"
    if wanted is None:
        return None
    if wanted.type == "json_schema":
        if wanted.json_schema is None:
            raise InvalidRequest(f"{field} is required", field)
        return json_constraint(wanted.json_schema.schema_, f"{field}.schema")
    if wanted.json_schema is not None:
        raise InvalidRequest(f"{field} goes with the type json_schema, not with {wanted.type}.", field)
    return json_constraint(None, "response_format") if wanted.type == "json_object" else None


def _the_one(first: T | None, second: T | None, name: str, other: str) -> T | None:
    """The value of a field that has two names. Raises InvalidRequest when they differ."""
    if first is not None and second is not None and first != second:
        raise InvalidRequest(f"{other} and {name} differ; send one of them.", other)
    return second if first is None else first


def _messages(body: ChatCompletionBody) -> tuple[Message, ...]:
    names: dict[str, str] = {}
    messages = []
    for index, message in enumerate(body.messages):
        calls = read_calls(message.tool_calls, f"messages[{index}].tool_calls") + _older_call(message, index)
        names |= {call.id: call.name for call in calls}
        role, call_id = _ROLES.get(message.role, message.role), message.tool_call_id
        if message.role == "function":
            call_id = next((one for one in reversed(names) if names[one] == message.name), None)
        if message.content is None and not calls:
            raise InvalidRequest("invalid message content type: <nil>", f"messages[{index}].content")
        text, media = _content(message, f"messages[{index}].content")
        messages.append(
            Message(
                role,
                text,
                thinking=message.reasoning_content or message.reasoning or None,
                tool_calls=calls,
                tool_name=message.name or names.get(call_id or ""),
                tool_call_id=call_id,
                media=media,
            )
        )
    return tuple(messages)


def _older_call(message: ChatMessage, index: int) -> tuple[ToolCall, ...]:
    called = message.function_call
    if called is None:
        return ()
    arguments = read_arguments(called.arguments, f"messages[{index}].function_call.arguments")
    return (ToolCall(f"call_{index}", called.name, arguments),)


def _content(message: ChatMessage, path: str) -> tuple[str, tuple[Media, ...]]:
    parts: list[str | MediaPart] = []
    for index, part in enumerate(message.content or ()):
        if isinstance(part, TextPart):
            parts.append(part.text)
        elif isinstance(part, ImagePart):
            parts.append(read_image_url(part.image_url.url, f"{path}[{index}].image_url.url"))
        else:
            field = f"{path}[{index}].input_audio.data"
            parts.append(read_base64(part.input_audio.data, field, MediaKind.AUDIO))
    return join_parts(parts)
