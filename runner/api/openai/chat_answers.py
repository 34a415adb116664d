"""Answers of chat completions: whole, and as the chunks of a stream. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from runner.api.errors import report_failure
from runner.api.openai.called import FUNCTIONS, CallDeltas, CallShape
from runner.api.openai.stream_ends import StreamEnds, chunk_envelope
from runner.api.openai.translate import Json, envelope, error_event, sse_event, truncation, usage_fields
from runner.api.sampling import token_entries
from runner.calls import Call
from runner.chat.types import (
    ChatEvent,
    Failed,
    Finished,
    ScoredToken,
    Started,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
)
from runner.choices import Choice, Choices
from runner.generate import Answer, Generation
from runner.receipt import receipt_field

_encode = msgspec.json.encode


class Chunks:
    """Turns the events of one request's answers into server-sent events.

    Chunks of text are put together from bytes made once, because there is one for every token.
    """

    def __init__(
        self,
        calls: Sequence[Call],
        generation: Generation | Choices,
        *,
        include_usage: bool,
        shape: CallShape = FUNCTIONS,
    ) -> None:
        self._call = calls[0]
        self._shape = shape
        self._told = [CallDeltas(shape) for _ in calls]
        self._envelope = chunk_envelope(
            "chat.completion.chunk", "chatcmpl", calls[0], generation, include_usage=include_usage
        )
        self._parts = [_ChunkParts(self._envelope, index) for index in range(len(calls))]
        self._ends = StreamEnds(calls, generation, self._envelope, include_usage=include_usage, per_prompt=len(calls))

    def encode(self, event: ChatEvent) -> bytes:
        """The chunk of an event of the only answer, or at its end all the last ones."""
        return self.encode_choice((0, event))

    def encode_choice(self, choice: Choice) -> bytes:
        """The chunk of an event of any answer; with the last end all the last chunks."""
        index, event = choice
        parts = self._parts[index]
        if type(event) is TextDelta:
            if event.tokens:
                return self._scored(index, event)
            if parts.has_begun:
                return b"".join((parts.head, _encode(event.text), parts.tail))
            parts.has_begun = True
            return b"".join((parts.first_head, _encode(event.text), parts.tail))
        if isinstance(event, Finished):
            return self._last(index, event)
        if isinstance(event, ThinkingDelta):
            return self._chunk(index, {"reasoning": event.text, "reasoning_content": event.text})
        if isinstance(event, ToolCallDelta):
            told = self._told[index].delta(event)
            return self._chunk(index, told) if told else b""
        if isinstance(event, Started):
            return b""
        assert isinstance(event, Failed)
        return error_event(report_failure(event.code, event.message, event.facts, self._call.request_id))

    def _chunk(self, index: int, delta: Json) -> bytes:
        choice = {"index": index, "delta": self._opening(index) | delta, "finish_reason": None}
        return sse_event(self._envelope | {"choices": [choice]})

    def _scored(self, index: int, event: TextDelta) -> bytes:
        delta = self._opening(index) | {"content": event.text}
        choice = {"index": index, "delta": delta, "logprobs": _logprobs(event.tokens), "finish_reason": None}
        return sse_event(self._envelope | {"choices": [choice]})

    def _opening(self, index: int) -> Json:
        has_begun, self._parts[index].has_begun = self._parts[index].has_begun, True
        return {} if has_begun else {"role": "assistant"}

    def _last(self, index: int, finished: Finished) -> bytes:
        opening = self._opening(index)
        delta: Json = (opening and opening | {"content": ""}) | self._told[index].rest()
        choice = {"index": index, "delta": delta, "finish_reason": self._shape.reason(finished.reason)}
        return self._ends.chunks(index, choice, finished)


class _ChunkParts:
    """The bytes around the text of one answer's chunks."""

    def __init__(self, envelope: Json, index: int) -> None:
        choice = {"index": index, "delta": {"content": "|"}, "finish_reason": None}
        before, after = _encode(envelope | {"choices": [choice]}).rsplit(b'"|"', 1)
        self.head, self.tail = b"data: " + before, after + b"\n\n"
        self.first_head = self.head.replace(b'"delta":{', b'"delta":{"role":"assistant",')
        self.has_begun = False


def completion(call: Call, answers: Sequence[Answer], shape: CallShape = FUNCTIONS) -> Json:
    """The whole answers as one object."""
    return {
        **envelope("chat.completion", "chatcmpl", call, answers[0].generation),
        "choices": [_choice(call, index, answer, shape) for index, answer in enumerate(answers)],
        **usage_fields([[answer.finished for answer in answers]]),
        **truncation([answer.finished for answer in answers]),
        **receipt_field(call, answers[0].generation, [answer.finished for answer in answers]),
    }


def _choice(call: Call, index: int, answer: Answer, shape: CallShape) -> Json:
    message: Json = {"role": "assistant", "content": answer.text, "refusal": None}
    if answer.thinking:
        message |= {"reasoning": answer.thinking, "reasoning_content": answer.thinking}
    if answer.calls:
        message |= shape.whole(answer.text, answer.calls)
    logprobs = None if call.logprobs is None else _logprobs(answer.tokens)
    reason = shape.reason(answer.finished.reason)
    return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": reason}


def _logprobs(tokens: Sequence[ScoredToken]) -> Json:
    return {"content": token_entries(tokens, always_alternatives=True), "refusal": None}
