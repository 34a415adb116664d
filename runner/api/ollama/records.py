"""The Ollama dialect's records: what an answer's events, errors and the progress of long work are told in."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec

from registry.progress import Progress
from runner.api.errors import ErrorReport, report_failure
from runner.api.ollama.tools import call_record
from runner.api.sampling import token_entries
from runner.calls import Call, Conversation
from runner.chat.types import (
    ChatEvent,
    Failed,
    Finished,
    FinishReason,
    Rendered,
    ScoredToken,
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

_encode = msgspec.json.encode

_DONE_REASONS = {FinishReason.TOOL_CALLS: "stop"}
"""Where this dialect has another word."""

Json = dict[str, object]


class Records:
    """Turns one answer's events into records.

    Those of text are put together from bytes made once, because there is one for every token.
    """

    def __init__(self, call: Call, source: Generation | Choices | None, *, started_ns: int) -> None:
        self._request = call
        self._source = source
        self._is_chat = isinstance(call.prompt, Conversation)
        self._started_ns = started_ns
        self._clock = _Clock()
        self._open_call: tuple[int, str, str] | None = None
        """Place, id and name of the call whose arguments are coming."""
        self._arguments: list[str] = []
        self._head = b'{"model":' + _encode(call.model) + b',"created_at":"'
        if self._is_chat:
            self._middle, self._tail = b'","message":{"role":"assistant","content":', b'},"done":false}\n'
        else:
            self._middle, self._tail = b'","response":', b',"done":false}\n'

    def encode(self, event: ChatEvent) -> bytes:
        """One record with its line end."""
        if type(event) is TextDelta:
            if event.tokens:
                return _line(self._scored(event))
            return b"".join((self._head, self._clock.now(), self._middle, _encode(event.text), self._tail))
        if isinstance(event, Finished):
            return self._finished_call() + _line(self.final(event))
        if isinstance(event, ThinkingDelta):
            return _line({**self._envelope("", thinking=event.text), "done": False})
        if isinstance(event, ToolCallDelta):
            return self._call(event)
        if isinstance(event, Started):
            return b""
        assert isinstance(event, Failed)
        return error_record(report_failure(event.code, event.message, event.facts, self._request.request_id))

    def whole(self, answer: Answer) -> Json:
        """The whole answer as one record."""
        written = [call_record(place, call) for place, call in enumerate(answer.calls)]
        # A call that was cut off has no arguments that could be told as an object; then it is text.
        text = answer.text + "".join(one for one in written if isinstance(one, str))
        calls = [one for one in written if not isinstance(one, str)]
        record = self.final(answer.finished, answer.tokens)
        return record | self._answer(text, answer.thinking, calls)

    def final(self, finished: Finished, tokens: Sequence[ScoredToken] = ()) -> Json:
        """The last record, without what went before it."""
        usage = finished.usage
        truncated = finished.truncated
        record = self._record("", _DONE_REASONS.get(finished.reason, finished.reason.value))
        counts: Json = {
            "logprobs": token_entries(tokens, always_alternatives=False),
            "context": list(finished.context) if finished.context is not None else None,
            "total_duration": time.monotonic_ns() - self._started_ns,
            "load_duration": self._source.load_ns if self._source else 0,
            "prompt_eval_count": usage.prompt_tokens,
            "prompt_eval_duration": usage.prompt_ns,
            "eval_count": usage.completion_tokens,
            "eval_duration": usage.decode_ns,
            "cached_tokens": usage.cached_tokens,
            "cache": usage.cached_tokens and usage.cache,
            "draft": usage.drafted_tokens and _drafts(usage),
            "truncated": truncated
            and {"from": truncated.original, "to": truncated.kept, "strategy": truncated.strategy},
        }
        receipt = receipt_field(self._request, self._source, [finished]) if self._source else {}
        return record | {name: value for name, value in counts.items() if value} | receipt

    def without_text(self, reason: str) -> Json:
        """The answer to an empty request: `load` or `unload`."""
        return self._record("", reason)

    def rendered(self, prompt: Rendered) -> Json:
        """The prompt in place of an answer; images and sounds are counted together, as there."""
        media = len(self._request.media)
        told: Json = {"rendered_template": prompt.text} | ({"image_count": media} if media else {})
        return {"model": self._request.model, "created_at": self._clock.now().decode(), "_debug_info": told}

    def _scored(self, delta: TextDelta) -> Json:
        logprobs = token_entries(delta.tokens, always_alternatives=False)
        return {**self._envelope(delta.text), "done": False, "logprobs": logprobs}

    def _record(self, text: str, done_reason: str) -> Json:
        return {**self._envelope(text), "done": True, "done_reason": done_reason}

    def _call(self, delta: ToolCallDelta) -> bytes:
        """Take in a piece of a call; the record of the one before it when this begins another."""
        record = self._finished_call() if delta.name else b""
        if delta.name:
            self._open_call = (delta.index, delta.id, delta.name)
        self._arguments.append(delta.arguments)
        return record

    def _finished_call(self) -> bytes:
        """The record of the call that is complete now, if there is one; calls are told whole in this dialect."""
        if self._open_call is None:
            return b""
        place, call_id, name = self._open_call
        written = call_record(place, ToolCall(call_id, name, "".join(self._arguments)))
        self._open_call = None
        self._arguments.clear()
        text, calls = (written, []) if isinstance(written, str) else ("", [written])
        return _line({**self._envelope(text, calls=calls), "done": False})

    def _envelope(self, text: str, *, thinking: str = "", calls: Sequence[Json] = ()) -> Json:
        created_at = self._clock.now().decode()
        return {"model": self._request.model, "created_at": created_at, **self._answer(text, thinking, calls)}

    def _answer(self, text: str, thinking: str = "", calls: Sequence[Json] = ()) -> Json:
        thoughts: Json = {"thinking": thinking} if thinking else {}
        called: Json = {"tool_calls": calls} if calls else {}
        if self._is_chat:
            return {"message": {"role": "assistant", "content": text, **thoughts, **called}}
        return {"response": text, **thoughts, **called}


class _Clock:
    """Tells the time as RFC 3339 with nanoseconds; the part down to the second is made once a second."""

    def __init__(self) -> None:
        self._second = 0
        self._text = b""

    def now(self) -> bytes:
        second, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
        if second != self._second:
            self._second = second
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second)).encode()
        return b"%b%09dZ" % (self._text, nanoseconds)


def _drafts(usage: Usage) -> Json:
    """What was computed ahead, and how much of it a draft model had guessed."""
    told: Json = {"tokens": usage.drafted_tokens, "accepted": usage.accepted_tokens}
    if usage.draft_model_tokens:
        told["draft_model"] = {"tokens": usage.draft_model_tokens, "accepted": usage.draft_model_accepted}
    return told


def error_record(report: ErrorReport) -> bytes:
    """An error as the last record of a stream."""
    return _line(error_body(report))


def error_body(report: ErrorReport) -> Json:
    """An error in this dialect's shape."""
    body: Json = {"error": report.message, "code": report.code, "request_id": report.request_id}
    return body | {name: value for name, value in report.facts.items() if name not in body}


def _line(record: Json) -> bytes:
    return _encode(record) + b"\n"


def progress_record(progress: Progress) -> bytes:
    """How far a pull, push or creation is."""
    return _line(progress_body(progress))


def progress_body(progress: Progress) -> Json:
    told: Json = {
        "status": progress.status,
        "digest": progress.digest,
        "total": progress.total,
        "completed": progress.completed,
    }
    return {name: value for name, value in told.items() if value is not None}
