"""An answer's events as the items of a response: as its stream, and as what is kept of it in the end."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import msgspec

from runner.api.errors import ErrorReport, report_failure
from runner.api.openai.custom_tools import InputReader
from runner.api.openai.responses_items import CallItem, CustomCallItem, Item, MessageItem, Part, ReasoningItem
from runner.api.openai.responses_object import ResponseFrame
from runner.api.openai.responses_translate import custom_names, new_id
from runner.api.openai.translate import Json, error_body
from runner.api.sampling import token_entries
from runner.chat.types import (
    ChatEvent,
    Failed,
    Finished,
    FinishReason,
    ScoredToken,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
)
from runner.generate import Answer, Generation

_encode = msgspec.json.encode
OutputItem = MessageItem | ReasoningItem | CallItem | CustomCallItem
_TEXT_DELTA = "response.output_text.delta"


def whole_output(answer: Answer, custom: frozenset[str] = frozenset()) -> list[Item]:
    """The items of a whole answer; `custom` are the tools whose input is a text."""
    output = OutputItems(custom)
    if answer.thinking:
        _exhaust(output.add(ThinkingDelta(answer.thinking)))
    if answer.text or answer.tokens:
        _exhaust(output.add(TextDelta(answer.text, answer.tokens)))
    for index, call in enumerate(answer.calls):
        _exhaust(output.add(ToolCallDelta(index, call.id, call.name, call.arguments)))
    _exhaust(output.finish(answer.finished.reason))
    return output.items


def _exhaust(events: Iterator[Json]) -> None:
    for _ in events:
        pass


class OutputItems:
    """The items of one answer as they grow; gives the dialect's events that tell of it, without their numbers."""

    def __init__(self, custom: frozenset[str] = frozenset()) -> None:
        self.items: list[Item] = []
        """Those that are complete."""
        self._custom = custom
        self._input = InputReader()
        self._open: OutputItem | None = None
        self._texts: list[str] = []
        self._logprobs: list[Json] = []

    @property
    def place(self) -> Json:
        """Where the open item's text stands."""
        assert self._open is not None
        return {"item_id": self._open.id, "output_index": len(self.items), "content_index": 0}

    def takes(self, event: TextDelta) -> bool:
        """Whether a text goes on in the open item and brings nothing but itself; it is taken then."""
        if type(self._open) is not MessageItem or event.tokens or not event.text:
            return False
        self._texts.append(event.text)
        return True

    def add(self, event: TextDelta | ThinkingDelta | ToolCallDelta) -> Iterator[Json]:
        """Take one event in; gives the dialect's events for it."""
        if isinstance(event, TextDelta):
            if event.text or event.tokens:
                yield from self._text(event)
        elif isinstance(event, ThinkingDelta):
            if not isinstance(self._open, ReasoningItem):
                yield from self._into(ReasoningItem(new_id("rs"), "", status="in_progress"))
            self._texts.append(event.text)
            yield {"type": "response.reasoning_text.delta", **self.place, "delta": event.text}
        else:
            yield from self._call(event)

    def finish(self, reason: FinishReason) -> Iterator[Json]:
        """End the open item; an answer that has none is an empty message."""
        if self._open is None and not self.items:
            yield from self._into(_empty_message())
        yield from self._close("incomplete" if reason is FinishReason.LENGTH else "completed")

    def so_far(self, status: str = "incomplete") -> list[Item]:
        """All items, the open one as far as it has come."""
        return self.items if self._open is None else [*self.items, self._grown(status)]

    def _text(self, event: TextDelta) -> Iterator[Json]:
        if not isinstance(self._open, MessageItem):
            yield from self._into(_empty_message())
        self._texts.append(event.text)
        logprobs = _logprobs(event.tokens)
        self._logprobs += logprobs
        yield {"type": _TEXT_DELTA, **self.place, "delta": event.text, "logprobs": logprobs}

    def _call(self, event: ToolCallDelta) -> Iterator[Json]:
        if event.name in self._custom:
            self._input = InputReader()
            yield from self._into(CustomCallItem(new_id("ctc"), event.id, event.name, "", "in_progress"))
        elif event.name:
            yield from self._into(CallItem(new_id("fc"), event.id, event.name, "", "in_progress"))
        if isinstance(self._open, CustomCallItem):
            yield from self._input_delta(self._input.push(event.arguments))
        elif event.arguments:
            self._texts.append(event.arguments)
            yield {
                "type": "response.function_call_arguments.delta",
                **_without_content(self.place),
                "delta": event.arguments,
            }

    def _input_delta(self, text: str) -> Iterator[Json]:
        if text:
            self._texts.append(text)
            place = _without_content(self.place)
            yield {"type": "response.custom_tool_call_input.delta", **place, "delta": text}

    def _into(self, item: OutputItem) -> Iterator[Json]:
        """Begin an item, after the one that is open."""
        yield from self._close("completed")
        self._open = item
        yield {"type": "response.output_item.added", "output_index": len(self.items), "item": item.record()}
        if isinstance(item, MessageItem | ReasoningItem):
            yield {"type": "response.content_part.added", **self.place, "part": _part(item, "", ())}

    def _close(self, status: str) -> Iterator[Json]:
        if self._open is None:
            return
        if isinstance(self._open, CustomCallItem):
            yield from self._input_delta(self._input.finish())
        item, text = self._grown(status), "".join(self._texts)
        match item:
            case CustomCallItem():
                place = _without_content(self.place)
                yield {"type": "response.custom_tool_call_input.done", **place, "input": text}
            case CallItem():
                place = _without_content(self.place)
                done = {"type": "response.function_call_arguments.done", **place, "name": item.name}
                yield {**done, "arguments": text}
            case ReasoningItem():
                yield {"type": "response.reasoning_text.done", **self.place, "text": text}
            case MessageItem():
                told = {"text": text, "logprobs": list(self._logprobs)}
                yield {"type": "response.output_text.done", **self.place, **told}
        if isinstance(item, MessageItem | ReasoningItem):
            yield {"type": "response.content_part.done", **self.place, "part": _part(item, text, self._logprobs)}
        yield {"type": "response.output_item.done", "output_index": len(self.items), "item": item.record()}
        self.items.append(item)
        self._open = None
        self._texts.clear()
        self._logprobs.clear()

    def _grown(self, status: str) -> OutputItem:
        item, text = self._open, "".join(self._texts)
        match item:
            case MessageItem():
                parts = (Part("output_text", text, tuple(self._logprobs)),)
                return dataclasses.replace(item, parts=parts, status=status)
            case CallItem():
                return dataclasses.replace(item, arguments=text, status=status)
            case CustomCallItem():
                return dataclasses.replace(item, input=text, status=status)
            case ReasoningItem():
                return dataclasses.replace(item, text=text, status=status)
        raise AssertionError("no item is open")


class ResponseStream:
    """One answer's events as server-sent events, numbered, in the order that the official client expects.

    `keep` is told the response when it has come to its end, also to a bad one.
    """

    def __init__(self, frame: ResponseFrame, request_id: str, keep: Callable[[Json, Sequence[Item]], None]) -> None:
        self._frame = frame
        self._request_id = request_id
        self._keep = keep
        self._output = OutputItems(custom_names(frame.body))
        self._number = 0
        self._head = b""
        self._is_created = False
        self._is_in_progress = False

    def wait(self) -> bytes:
        """What tells of a response that nobody has begun to make."""
        self._is_created = True
        response = self._frame.record("queued", ())
        kinds = ("response.created", "response.queued")
        return b"".join(self._event({"type": kind, "response": response}) for kind in kinds)

    def opened(self, generation: Generation) -> None:
        """The model has begun."""
        self._frame = dataclasses.replace(self._frame, generation=generation)

    def so_far(self) -> Json:
        """The response as far as it has come."""
        status = "in_progress" if self._is_in_progress else "queued"
        return self._frame.record(status, self._output.so_far("in_progress"))

    def encode_cancelled(self) -> bytes:
        """The end of a response that is not wanted any more."""
        output = self._output.so_far()
        response = self._frame.record("cancelled", output)
        self._keep(response, output)
        return self._event({"type": "response.cancelled", "response": response})

    def encode(self, event: ChatEvent) -> bytes:
        if type(event) is TextDelta and self._head and self._output.takes(event):
            # There is one of these for every token.
            self._number += 1
            return b'%b%b,"sequence_number":%d}\n\n' % (self._head, _encode(event.text), self._number - 1)
        if isinstance(event, Failed):
            return self.encode_error(report_failure(event.code, event.message, event.facts, self._request_id))
        records = b"".join(map(self._event, self._events(event)))
        self._head = b""
        if type(event) is TextDelta and event.text:
            place = _encode({"type": _TEXT_DELTA, **self._output.place, "logprobs": []})
            self._head = b"event: " + _TEXT_DELTA.encode() + b"\ndata: " + place[:-1] + b',"delta":'
        return records

    def encode_error(self, report: ErrorReport) -> bytes:
        """The end of a stream that has failed: what has become of the response, and the error itself, which is last."""
        response = self._frame.failed(report, self._output.so_far())
        self._keep(response, self._output.so_far())
        error = error_body(report)
        told: Json = {
            "type": "error",
            "code": report.code,
            "message": report.message,
            "param": report.facts.get("field"),
        }
        records: list[Json] = [*self._beginning(), {"type": "response.failed", "response": response}, told | error]
        return b"".join([self._event(record) for record in records])

    def _events(self, event: ChatEvent) -> Iterator[Json]:
        yield from self._beginning()
        if isinstance(event, TextDelta | ThinkingDelta | ToolCallDelta):
            yield from self._output.add(event)
        elif isinstance(event, Finished):
            yield from self._output.finish(event.reason)
            response = self._frame.finished(event, self._output.items)
            self._keep(response, self._output.items)
            yield {"type": f"response.{response['status']}", "response": response}

    def _beginning(self) -> Iterator[Json]:
        if not self._is_in_progress:
            self._is_in_progress = True
            response = self._frame.record("in_progress", ())
            if not self._is_created:
                yield {"type": "response.created", "response": response}
            yield {"type": "response.in_progress", "response": response}

    def _event(self, record: Json) -> bytes:
        numbered = {**record, "sequence_number": self._number}
        self._number += 1
        return b"event: " + str(record["type"]).encode() + b"\ndata: " + _encode(numbered) + b"\n\n"


def _empty_message() -> MessageItem:
    return MessageItem(new_id("msg"), "assistant", (), "in_progress")


def _part(item: MessageItem | ReasoningItem, text: str, logprobs: Sequence[Json]) -> Json:
    if isinstance(item, ReasoningItem):
        return {"type": "reasoning_text", "text": text}
    return Part("output_text", text, tuple(logprobs)).record()


def _without_content(place: Json) -> Json:
    return {name: value for name, value in place.items() if name != "content_index"}


def _logprobs(tokens: Sequence[ScoredToken]) -> list[Json]:
    return token_entries(tokens, always_alternatives=True)
