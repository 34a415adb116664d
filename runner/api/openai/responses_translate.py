"""Requests for responses as calls of a model. Pure functions."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Callable, Collection, Sequence
from typing import Literal

from runner.api.media_parts import read_base64, read_image_url
from runner.api.openai.chat_calls import conversation_call
from runner.api.openai.custom_tools import custom_tool
from runner.api.openai.item_schema import (
    CustomCallBody,
    CustomOutputBody,
    FunctionCallBody,
    FunctionOutputBody,
    InputImage,
    InputSound,
    ItemBody,
    MessageBody,
    PartBody,
    ReasoningBody,
    Refusal,
)
from runner.api.openai.responses_items import (
    CallItem,
    CustomCallItem,
    CustomResultItem,
    Item,
    MessageItem,
    Part,
    Reading,
    ReasoningItem,
    ResultItem,
    conversation,
)
from runner.api.openai.responses_schema import (
    LOGPROBS,
    Choice,
    CustomTool,
    FormatBody,
    FunctionTool,
    ResponseBody,
    ResponsePromptBody,
)
from runner.api.openai.shaping import chosen_options
from runner.api.openai.tools import (
    AllowedTools,
    AllowedToolsChoice,
    NamedCustomTool,
    NamedTool,
    ToolChoice,
    ToolName,
    choose_tools,
    function_tool,
    named,
    read_arguments,
    unlike_tools,
)
from runner.api.sampling import json_constraint, one_constraint
from runner.calls import Call, Conversation
from runner.chat.media import MediaKind
from runner.chat.types import Tool
from runner.errors import InvalidRequest
from runner.sampling import Constraint


def new_id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(24)}"


def read_input(
    bodies: Sequence[ItemBody] | None, earlier: Sequence[Item], find: Callable[[str], Item | None]
) -> Reading:
    """What the model is to read, behind the items of an earlier response; `find` knows items that may be referred to.

    Raises InvalidRequest naming the field.
    """
    fresh = read_items(bodies or (), "input", find, {item.id for item in earlier})
    if not earlier and not fresh:
        raise InvalidRequest("input is empty, and there is no earlier response to go on from.", "input")
    return Reading(tuple(earlier), fresh)


def read_items(
    bodies: Sequence[ItemBody], field: str, find: Callable[[str], Item | None], there: Collection[str] = ()
) -> tuple[Item, ...]:
    """Items as clients send them, behind those with the ids that are `there`.

    Raises InvalidRequest naming the one that is wrong, or that is there already.
    """
    items = tuple(_read_item(item, f"{field}[{index}]", find) for index, item in enumerate(bodies))
    seen = set(there)
    for index, item in enumerate(items):
        if item.id in seen:
            message = f"{field}[{index}] is the item {item.id[:100]!a}, which is there already; send each item once."
            raise InvalidRequest(message, f"{field}[{index}].id")
        seen.add(item.id)
    return items


def answer_call(body: ResponseBody, request_id: str, items: Sequence[Item]) -> Call:
    """Raises InvalidRequest or Unsupported naming the field."""
    options = chosen_options(body)
    if body.max_output_tokens is not None:
        options["num_predict"] = body.max_output_tokens
    wants_logprobs = LOGPROBS in (body.include or ()) or bool(body.top_logprobs)
    return dataclasses.replace(
        prompt_call(body, request_id, items),
        options=options,
        constraint=one_constraint(_json_format(body.text.format if body.text else None), body.grammar),
        logprobs=(body.top_logprobs or 0) if wants_logprobs else None,
        receipt=bool(body.receipt),
    )


def prompt_call(body: ResponsePromptBody, request_id: str, items: Sequence[Item]) -> Call:
    """As `answer_call`, with what decides the prompt alone."""
    effort = body.reasoning.effort if body.reasoning else None
    read = unlike_tools(_tool(tool, f"tools[{index}]") for index, tool in enumerate(body.tools or ()))
    chosen = choose_tools(read, _choice(body.tool_choice))
    prompt = Conversation(messages=conversation(body.instructions, items))
    return dataclasses.replace(
        conversation_call(request_id, body.model, prompt, chosen, effort, "reasoning.effort"),
        parallel_calls=body.parallel_tool_calls,
        truncate=body.truncation == "auto",
        truncate_wish='"truncation": "auto"',
    )


def ignored_includes(body: ResponseBody) -> list[str]:
    """What was asked for beside the answer that no answer here has."""
    return [f"include[{one}]" for one in dict.fromkeys(body.include or ()) if one != LOGPROBS]


def custom_names(body: ResponsePromptBody) -> frozenset[str]:
    """The tools whose input is a text."""
    return frozenset(tool.name for tool in body.tools or () if isinstance(tool, CustomTool))


def _tool(tool: FunctionTool | CustomTool, field: str) -> Tool:
    if isinstance(tool, FunctionTool):
        return function_tool(tool, field)
    return custom_tool(named(tool.name, field), tool.description, tool.format, field)


def _choice(choice: Choice | None) -> ToolChoice:
    """The choice as chat completions write it. Raises InvalidRequest for one that lacks a part or has one too many."""
    if choice is None:
        return None
    if choice.type == "function" or choice.type == "custom":
        _has_only(choice, "name")
        return _named(choice.type, choice.name or "")
    if choice.type == "allowed_tools":
        _has_only(choice, "mode", "tools")
        allowed = [_named(tool.type, tool.name) for tool in choice.tools or ()]
        mode = choice.mode or "auto"
        return AllowedToolsChoice(type="allowed_tools", allowed_tools=AllowedTools(mode=mode, tools=allowed))
    _has_only(choice)
    return choice.type


def _has_only(choice: Choice, *parts: str) -> None:
    for part in ("name", "mode", "tools"):
        if bool(getattr(choice, part)) is not (part in parts):
            complaint = "is required" if part in parts else f"does not go with the type {choice.type}"
            raise InvalidRequest(f"tool_choice.{part} {complaint}", f"tool_choice.{part}")


def _named(kind: Literal["function", "custom"], name: str) -> NamedTool | NamedCustomTool:
    if kind == "custom":
        return NamedCustomTool(type=kind, custom=ToolName(name=name))
    return NamedTool(type=kind, function=ToolName(name=name))


def _json_format(wanted: FormatBody | None) -> Constraint | None:
    if wanted is None:
        return None
    if wanted.type == "json_schema":
        if wanted.schema_ is None:
            raise InvalidRequest("text.format.schema is required", "text.format.schema")
        return json_constraint(wanted.schema_, "text.format.schema")
    if wanted.schema_ is not None:
        message = f"text.format.schema goes with the type json_schema, not with {wanted.type}."
        raise InvalidRequest(message, "text.format.schema")
    return json_constraint(None, "text.format") if wanted.type == "json_object" else None


def _read_item(body: ItemBody, path: str, find: Callable[[str], Item | None]) -> Item:
    status = (getattr(body, "status", None)) or "completed"
    match body:
        case MessageBody():
            parts = _parts(body.content, body.role, f"{path}.content")
            return MessageItem(body.id or new_id("msg"), body.role, parts, status)
        case FunctionCallBody():
            arguments = read_arguments(body.arguments, f"{path}.arguments")
            return CallItem(body.id or new_id("fc"), body.call_id, body.name, arguments, status)
        case CustomCallBody():
            return CustomCallItem(body.id or new_id("ctc"), body.call_id, body.name, body.input, status)
        case CustomOutputBody():
            output = _parts(body.output, "tool", f"{path}.output")
            return CustomResultItem(body.id or new_id("ctco"), body.call_id, output, None, status)
        case FunctionOutputBody():
            if not body.call_id and not body.name:
                raise InvalidRequest(f"{path}.call_id is required", f"{path}.call_id")
            output = _parts(body.output, "tool", f"{path}.output")
            return ResultItem(body.id or new_id("fco"), body.call_id or "", output, body.name, status)
        case ReasoningBody():
            text = "".join(part.text for part in body.content or ())
            summary = tuple(part.text for part in body.summary or ())
            return ReasoningItem(body.id or new_id("rs"), text, summary, status)
    found = find(body.id)
    if found is None:
        raise InvalidRequest(f"{path} refers to the item {body.id[:100]!a}, which is not stored here.", f"{path}.id")
    return found


def _parts(bodies: Sequence[PartBody], role: str, path: str) -> tuple[Part, ...]:
    return tuple(_part(part, role, f"{path}[{index}]") for index, part in enumerate(bodies))


def _part(part: PartBody, role: str, path: str) -> Part:
    if isinstance(part, InputImage | InputSound) and role == "assistant":
        raise InvalidRequest(f"{path} cannot be of the type {part.type} here.", f"{path}.type")
    match part:
        case InputImage():
            return Part(part.type, part.image_url, media=read_image_url(part.image_url, f"{path}.image_url"))
        case InputSound():
            field = f"{path}.input_audio.data"
            data = part.input_audio.data
            return Part(part.type, data, media=read_base64(data, field, MediaKind.AUDIO))
        case Refusal():
            return Part(part.type, part.refusal)
    return Part("output_text" if role == "assistant" else "input_text", part.text)
