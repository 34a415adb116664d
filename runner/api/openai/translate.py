"""The OpenAI dialect: chats as calls, and what all its answers have in common. Pure functions."""

from __future__ import annotations

import dataclasses
import hashlib
import secrets
import time
from collections.abc import Iterable, Sequence

import msgspec

from registry.stored_model import StoredModel
from runner.api.errors import ErrorReport
from runner.api.media_parts import MediaPart, join_parts, read_base64, read_image_url
from runner.api.openai.called import CallShape
from runner.api.openai.schema import ChatCompletionBody, ChatMessage, ImagePart, ResponseFormat, TextPart
from runner.api.openai.shaping import chosen_options
from runner.api.openai.tools import (
    CustomTool,
    NamedTool,
    choose_tools,
    function_tool,
    read_arguments,
    read_calls,
    read_tools,
    unlike_tools,
)
from runner.api.sampling import json_constraint, one_constraint, wanted_logprobs
from runner.chat.media import Media, MediaKind
from runner.chat.types import (
    Finished,
    Message,
    Tool,
    ToolCall,
    ToolUse,
    is_begun,
)
from runner.choices import Choices
from runner.errors import InvalidRequest
from runner.generate import Call, Conversation, Generation
from runner.sampling import Constraint

_encode = msgspec.json.encode
Json = dict[str, object]
END_OF_STREAM = b"data: [DONE]\n\n"

_ROLES = {"developer": "system", "function": "tool"}
"""Other names for the same."""
EFFORTS = {"none": None, "minimal": "low", "xhigh": "high", "max": "high"}
_ERROR_TYPES = {400: "invalid_request_error", 404: "not_found_error"}


def chat_calls(body: ChatCompletionBody, request_id: str) -> list[Call]:
    """A call for each answer that is wanted. Raises InvalidRequest for what single fields do not show."""
    call = _chat_call(body, request_id)
    return [dataclasses.replace(call, variant=number) for number in range(body.n or 1)]


def _chat_call(body: ChatCompletionBody, request_id: str) -> Call:
    if not body.messages:
        raise InvalidRequest("[] is too short - 'messages'", "messages")
    options = chosen_options(body)
    longest = _longest_answer(body)
    if longest is not None:
        options["num_predict"] = longest
    effort = body.reasoning_effort or (body.reasoning.effort if body.reasoning else None)
    tools, tool_use, named_tool = _tools(body)
    messages = _messages(body)
    return Call(
        request_id=request_id,
        model=body.model,
        prompt=Conversation(messages=messages, tools=tools, continues=is_begun(messages)),
        options=options,
        options_path="",
        thinking=effort != "none" if effort else None,
        thinking_field="reasoning_effort",
        effort=EFFORTS.get(effort, effort) if effort else None,
        may_think_in_vain=True,
        tool_use=tool_use,
        named_tool=named_tool,
        parallel_calls=False if body.functions else body.parallel_tool_calls,
        truncate=bool(body.truncate),
        constraint=one_constraint(_json_format(body.response_format), body.grammar),
        logit_bias=tuple((body.logit_bias or {}).items()),
        logprobs=wanted_logprobs(body.logprobs, body.top_logprobs),
        receipt=bool(body.receipt),
    )


def call_shape(body: ChatCompletionBody) -> CallShape:
    """How the calls in the answer are told."""
    custom = frozenset(tool.custom.name for tool in body.tools or () if isinstance(tool, CustomTool))
    return CallShape(custom, is_older=bool(body.functions))


def _tools(body: ChatCompletionBody) -> tuple[tuple[Tool, ...], ToolUse, str | None]:
    if body.functions and body.tools:
        raise InvalidRequest("functions is the older form of tools; send one of them.", "functions")
    if not body.functions and (body.function_call is None or isinstance(body.function_call, str)):
        return choose_tools(read_tools(body.tools), body.tool_choice)
    functions = unlike_tools(
        (function_tool(function, f"functions[{index}]") for index, function in enumerate(body.functions or ())),
        "functions",
    )
    choice = body.function_call
    if choice is None or isinstance(choice, str):
        return choose_tools(functions, choice)
    if choice.name not in {tool.name for tool in functions}:
        message = f"function_call names {choice.name[:100]!a}, which is not among the functions."
        raise InvalidRequest(message, "function_call")
    return choose_tools(functions, NamedTool(type="function", function=choice))


def _json_format(wanted: ResponseFormat | None) -> Constraint | None:
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return json_constraint(None, "response_format")
    if wanted.json_schema is None:
        raise InvalidRequest("response_format.json_schema is required", "response_format.json_schema")
    return json_constraint(wanted.json_schema.schema_, "response_format.json_schema.schema")


def _longest_answer(body: ChatCompletionBody) -> int | None:
    newer, older = body.max_completion_tokens, body.max_tokens
    if newer is not None and older is not None and newer != older:
        raise InvalidRequest("max_tokens and max_completion_tokens differ; send one of them.", "max_tokens")
    return older if newer is None else newer


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


def model_entry(model: StoredModel) -> Json:
    """A model as /v1/models shows it."""
    return {
        "id": model.name.short,
        "object": "model",
        "created": int(model.modified_at.timestamp()),
        "owned_by": model.name.namespace,
    }


def error_event(report: ErrorReport) -> bytes:
    """An error as the last event of a stream."""
    return sse_event(error_body(report))


def error_body(report: ErrorReport) -> Json:
    """An error in this dialect's shape."""
    error: Json = {
        "message": report.message,
        "type": _ERROR_TYPES.get(report.status, "api_error"),
        "param": report.facts.get("field"),
        "code": report.code,
        "request_id": report.request_id,
    }
    facts = {name: value for name, value in report.facts.items() if name not in error and name != "field"}
    return {"error": error | facts}


def envelope(kind: str, prefix: str, call: Call, generation: Generation | Choices) -> Json:
    """What every object of one answer begins with."""
    build = f"{generation.loaded.engine}\0{generation.model.digest}".encode()
    return {
        "id": f"{prefix}-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": call.model,
        "system_fingerprint": f"fp_{hashlib.sha256(build).hexdigest()[:12]}",
    }


def usage(answers: Sequence[Iterable[Finished]]) -> Json:
    """The sums over all answers, for each prompt its own; a prompt counts once."""
    by_prompt = [[finished.usage for finished in group] for group in answers]
    prompt_tokens = sum(group[0].prompt_tokens for group in by_prompt)
    each = [one for group in by_prompt for one in group]
    completion_tokens = sum(one.completion_tokens for one in each)
    counts: Json = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": sum(group[0].cached_tokens for group in by_prompt)},
    }
    drafted, accepted = sum(one.drafted_tokens for one in each), sum(one.accepted_tokens for one in each)
    if drafted:
        # What the engine guessed of itself; a prediction of the caller's is not asked for.
        counts["completion_tokens_details"] = {
            "accepted_prediction_tokens": accepted,
            "rejected_prediction_tokens": drafted - accepted,
        }
    return counts


def truncation(ends: Iterable[Finished]) -> Json:
    """What was shortened, as the first of the answers tells it."""
    for finished in ends:
        if (told := finished.truncated) is not None:
            return {"truncated": {"from": told.original, "to": told.kept, "strategy": told.strategy}}
    return {}


def sse_event(record: Json) -> bytes:
    """A record as a server-sent event."""
    return b"data: " + _encode(record) + b"\n\n"
