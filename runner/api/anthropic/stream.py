"""An answer's events as the Anthropic dialect's: messages of blocks, whole or as server-sent events."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import msgspec

from runner.api.errors import ErrorReport, report_failure
from runner.calls import Call
from runner.chat.types import (
    ChatEvent,
    Failed,
    Finished,
    FinishReason,
    Started,
    TextDelta,
    ThinkingDelta,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from runner.choices import Choices
from runner.generate import Answer, Generation
from runner.receipt import receipt_field

Json = dict[str, object]
_encode = msgspec.json.encode

_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


class Blocks:
    """The content blocks of one answer as they grow; gives the dialect's events that tell of it."""

    def __init__(self) -> None:
        self._index = -1
        self._open: str | None = None

    def add(self, event: TextDelta | ThinkingDelta | ToolCallDelta) -> Iterator[Json]:
        """Take one event in; gives the dialect's events for it."""
        if isinstance(event, TextDelta):
            if event.text:
                yield from self._into("text", {"type": "text", "text": ""})
                yield self._delta({"type": "text_delta", "text": event.text})
        elif isinstance(event, ThinkingDelta):
            yield from self._into("thinking", {"type": "thinking", "thinking": "", "signature": ""})
            yield self._delta({"type": "thinking_delta", "thinking": event.text})
        else:
            yield from self._call(event)

    def close(self) -> Iterator[Json]:
        """End the block that is open."""
        if self._open is None:
            return
        if self._open == "thinking":
            # Clients keep a signature with each thought and send it back; ours mean nothing.
            yield self._delta({"type": "signature_delta", "signature": ""})
        yield {"type": "content_block_stop", "index": self._index}
        self._open = None

    def _call(self, event: ToolCallDelta) -> Iterator[Json]:
        if event.name:
            yield from self.close()
            yield from self._into("tool_use", {"type": "tool_use", "id": event.id, "name": event.name, "input": {}})
        if event.arguments:
            yield self._delta({"type": "input_json_delta", "partial_json": event.arguments})

    def _into(self, kind: str, empty: Json) -> Iterator[Json]:
        """Make the open block one of this kind."""
        if self._open == kind and kind != "tool_use":
            return
        yield from self.close()
        self._open = kind
        self._index += 1
        yield {"type": "content_block_start", "index": self._index, "content_block": empty}

    def _delta(self, delta: Json) -> Json:
        return {"type": "content_block_delta", "index": self._index, "delta": delta}


class MessageStream:
    """One answer's events as server-sent events, in the order that the official client expects."""

    def __init__(self, call: Call, generation: Generation | Choices) -> None:
        self._call = call
        self._generation = generation
        self._blocks = Blocks()
        self._has_begun = False

    def encode(self, event: ChatEvent) -> bytes:
        return b"".join(map(_event, self._events(event)))

    def _events(self, event: ChatEvent) -> Iterator[Json]:
        if isinstance(event, Failed):
            yield error_body(report_failure(event.code, event.message, event.facts, self._call.request_id))
            return
        if not self._has_begun:
            self._has_begun = True
            prompt, cached = (event.prompt_tokens, event.cached_tokens) if isinstance(event, Started) else (0, 0)
            yield {"type": "message_start", "message": _message(self._call.model, [], _usage(prompt, cached, 0))}
        if isinstance(event, TextDelta | ThinkingDelta | ToolCallDelta):
            yield from self._blocks.add(event)
        elif isinstance(event, Finished):
            yield from self._blocks.close()
            usage = event.usage
            yield {
                "type": "message_delta",
                "delta": _ending(event),
                "usage": _usage(usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens),
                **_cache_tiers(usage),
                **_truncation(event),
                **receipt_field(self._call, self._generation, [event]),
            }
            yield {"type": "message_stop"}


def whole_message(call: Call, answer: Answer) -> Json:
    """The answer as one message."""
    content: list[Json] = []
    if answer.thinking:
        content.append({"type": "thinking", "thinking": answer.thinking, "signature": ""})
    if answer.text:
        content.append({"type": "text", "text": answer.text})
    content += [{"type": "tool_use", "id": call.id, "name": call.name, "input": _input(call)} for call in answer.calls]
    usage = answer.finished.usage
    counts = _usage(usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens)
    return {
        **_message(call.model, content, counts),
        **_ending(answer.finished),
        **_cache_tiers(usage),
        **_truncation(answer.finished),
        **receipt_field(call, answer.generation, [answer.finished]),
    }


def error_body(report: ErrorReport) -> Json:
    """An error in this dialect's shape."""
    kind = _ERROR_TYPES.get(report.status, "api_error")
    facts: Json = {name: value for name, value in report.facts.items() if name not in ("type", "message", "code")}
    if (report.code, facts.get("field")) == ("unsupported", "thread"):
        # By this a client knows that it can go on without, and sends the whole conversation.
        facts["details"] = {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}
    return {
        "type": "error",
        "error": {"type": kind, "message": _sentence(report), "code": report.code, **facts},
        "request_id": report.request_id,
    }


def _sentence(report: ErrorReport) -> str:
    """The message; of a prompt that does not fit with the words by which agents know that they have to shorten it."""
    if report.code != "context_length_exceeded":
        return report.message
    read, window = (report.facts.get(name) for name in ("prompt_tokens", "context_length"))
    return f"prompt is too long: {read} tokens > {window} maximum. {report.message}"


def error_event(report: ErrorReport) -> bytes:
    """An error as the last event of a stream."""
    return _event(error_body(report))


def _message(model: str, content: list[Json], usage: Json) -> Json:
    return {
        "id": f"msg_{secrets.token_hex(12)}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }


def _ending(finished: Finished) -> Json:
    if finished.reason is FinishReason.TOOL_CALLS:
        return {"stop_reason": "tool_use", "stop_sequence": None}
    if finished.reason is FinishReason.LENGTH:
        return {"stop_reason": "max_tokens", "stop_sequence": None}
    if finished.stop_string is not None:
        return {"stop_reason": "stop_sequence", "stop_sequence": finished.stop_string}
    return {"stop_reason": "end_turn", "stop_sequence": None}


def _usage(prompt: int, cached: int, completion: int) -> Json:
    # As there, what came from the cache is not counted among the input tokens.
    return {
        "input_tokens": prompt - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": completion,
    }


def _cache_tiers(usage: Usage) -> Json:
    return {"cache": usage.cache} if usage.cache.total else {}


def _truncation(finished: Finished) -> Json:
    if finished.truncated is None:
        return {}
    told = finished.truncated
    return {"truncated": {"from": told.original, "to": told.kept, "strategy": told.strategy}}


def _input(call: ToolCall) -> Json:
    """A call's arguments; what is cut off or malformed is kept as text under a name that says so."""
    arguments = call.parsed()
    return {"_incomplete": call.arguments} if arguments is None else arguments


def _event(record: Json) -> bytes:
    return b"event: " + str(record["type"]).encode() + b"\ndata: " + _encode(record) + b"\n\n"
