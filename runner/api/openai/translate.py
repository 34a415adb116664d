"""The OpenAI dialect: its requests as calls, events as its chunks. Pure functions."""

from __future__ import annotations

import hashlib
import secrets
import time

import msgspec

from registry.store import StoredModel
from runner.api.errors import ErrorReport, report_failure
from runner.api.openai.schema import ChatCompletionBody
from runner.chat.types import ChatEvent, Failed, Finished, Message, TextDelta, Usage
from runner.errors import InvalidRequest
from runner.generate import Answer, Call, Conversation, Generation

_encode = msgspec.json.encode
Json = dict[str, object]

_OPTIONS = ("temperature", "top_p", "top_k", "min_p", "frequency_penalty", "presence_penalty", "seed", "stop")
_ERROR_TYPES = {400: "invalid_request_error", 404: "not_found_error"}


def chat_call(body: ChatCompletionBody, request_id: str) -> Call:
    """Raises InvalidRequest for what single fields do not show."""
    if not body.messages:
        raise InvalidRequest("[] is too short - 'messages'", "messages")
    options = {name: value for name in _OPTIONS if (value := getattr(body, name)) is not None}
    longest = _longest_answer(body)
    if longest is not None:
        options["num_predict"] = longest
    effort = body.reasoning_effort or (body.reasoning and body.reasoning.effort)
    return Call(
        request_id=request_id,
        model=body.model,
        prompt=Conversation(messages=_messages(body)),
        options=options,
        options_path="",
        thinking=False if effort == "none" else None,
        truncate=bool(body.truncate),
    )


def _longest_answer(body: ChatCompletionBody) -> int | None:
    newer, older = body.max_completion_tokens, body.max_tokens
    if newer is not None and older is not None and newer != older:
        raise InvalidRequest("max_tokens and max_completion_tokens differ; send one of them.", "max_tokens")
    return older if newer is None else newer


def _messages(body: ChatCompletionBody) -> tuple[Message, ...]:
    messages = []
    for index, message in enumerate(body.messages):
        if message.content is None:
            raise InvalidRequest("invalid message content type: <nil>", f"messages[{index}].content")
        role = "system" if message.role == "developer" else message.role
        messages.append(Message(role, message.content))
    return tuple(messages)


class Chunks:
    """Turns one answer's events into server-sent events.

    Chunks of text are put together from bytes made once, because there is one for every token.
    """

    def __init__(self, call: Call, generation: Generation, *, include_usage: bool) -> None:
        self._request_id = call.request_id
        self._include_usage = include_usage
        self._envelope = _envelope("chat.completion.chunk", call, generation)
        before, after = _encode(
            self._envelope | {"choices": [{"index": 0, "delta": {"content": "|"}, "finish_reason": None}]}
        ).rsplit(b'"|"', 1)
        self._head, self._tail = b"data: " + before, after + b"\n\n"
        self._first_head = self._head.replace(b'"delta":{', b'"delta":{"role":"assistant",')
        self._has_begun = False

    def encode(self, event: ChatEvent) -> bytes:
        """One event's chunk, or at the end all the last ones."""
        if type(event) is TextDelta:
            if self._has_begun:
                return b"".join((self._head, _encode(event.text), self._tail))
            self._has_begun = True
            return b"".join((self._first_head, _encode(event.text), self._tail))
        if isinstance(event, Finished):
            return self._last(event)
        assert isinstance(event, Failed)
        return error_event(report_failure(event.code, event.message, event.facts, self._request_id))

    def _last(self, finished: Finished) -> bytes:
        delta: Json = {} if self._has_begun else {"role": "assistant", "content": ""}
        choice = {"index": 0, "delta": delta, "finish_reason": finished.reason.value}
        chunks = [self._envelope | {"choices": [choice]} | _truncation(finished)]
        if self._include_usage:
            chunks.append(self._envelope | {"choices": [], "usage": _usage(finished.usage)})
        return b"".join([*map(_event, chunks), b"data: [DONE]\n\n"])


def completion(call: Call, answer: Answer) -> Json:
    """The whole answer as one object."""
    message = {"role": "assistant", "content": answer.text}
    choice = {"index": 0, "message": message, "finish_reason": answer.finished.reason.value}
    return {
        **_envelope("chat.completion", call, answer.generation),
        "choices": [choice],
        "usage": _usage(answer.finished.usage),
        **_truncation(answer.finished),
    }


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
    return _event(error_body(report))


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


def _envelope(kind: str, call: Call, generation: Generation) -> Json:
    build = f"{generation.loaded.engine}\0{generation.model.digest}".encode()
    return {
        "id": f"chatcmpl-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": call.model,
        "system_fingerprint": f"fp_{hashlib.sha256(build).hexdigest()[:12]}",
    }


def _usage(usage: Usage) -> Json:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def _truncation(finished: Finished) -> Json:
    if finished.truncated is None:
        return {}
    told = finished.truncated
    return {"truncated": {"from": told.original, "to": told.kept, "strategy": told.strategy}}


def _event(record: Json) -> bytes:
    return b"data: " + _encode(record) + b"\n\n"
