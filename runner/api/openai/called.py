"""How an answer's calls are told to clients of chat completions: of functions, of custom tools, in the older shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runner.api.openai.custom_tools import InputReader, input_of
from runner.chat.types import FinishReason, ToolCall, ToolCallDelta

Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class CallShape:
    """How the calls of one request are told."""

    custom: frozenset[str] = frozenset()
    """Names of tools whose input is a text."""
    is_older: bool = False
    """As `function_call`, which has room for one; a model that makes more of them says those as text."""

    def whole(self, text: str, calls: Sequence[ToolCall]) -> Json:
        """What a message has of them, and its text."""
        if self.is_older:
            first, *others = calls
            text += "".join(_in_words(call.name, call.arguments) for call in others)
            return {"content": text or None, "function_call": {"name": first.name, "arguments": first.arguments}}
        return {"content": text or None, "tool_calls": [self._whole(call) for call in calls]}

    def reason(self, reason: FinishReason) -> str:
        """Why the answer ended, in this dialect's word."""
        return "function_call" if self.is_older and reason is FinishReason.TOOL_CALLS else reason.value

    def _whole(self, call: ToolCall) -> Json:
        if call.name in self.custom:
            return _custom(call.id, call.name, input_of(call.arguments))
        return _function(call.id, call.name, call.arguments)


FUNCTIONS = CallShape()
"""Where there are no other tools."""


class CallDeltas:
    """Tells the calls of one answer as they come."""

    def __init__(self, shape: CallShape) -> None:
        self._shape = shape
        self._texts: dict[int, InputReader] = {}

    def delta(self, event: ToolCallDelta) -> Json:
        """What a chunk says of it; empty when there is nothing to say yet."""
        if self._shape.is_older:
            return self._older(event)
        if event.name in self._shape.custom:
            self._texts[event.index] = InputReader()
        if (reader := self._texts.get(event.index)) is not None:
            text = reader.push(event.arguments)
            if event.name:
                return _begun(event.index, _custom(event.id, event.name, text))
            return {"tool_calls": [{"index": event.index, "custom": {"input": text}}]} if text else {}
        if not event.name:
            return {"tool_calls": [{"index": event.index, "function": {"arguments": event.arguments}}]}
        return _begun(event.index, _function(event.id, event.name, event.arguments))

    def rest(self) -> Json:
        """What was held back of texts, at the end of the answer."""
        told = [
            {"index": index, "custom": {"input": text}}
            for index, reader in self._texts.items()
            if (text := reader.finish())
        ]
        return {"tool_calls": told} if told else {}

    def _older(self, event: ToolCallDelta) -> Json:
        if event.index:
            return {"content": _in_words(event.name, event.arguments) if event.name else event.arguments}
        named = {"name": event.name} if event.name else {}
        return {"function_call": {**named, "arguments": event.arguments}}


def _in_words(name: str, arguments: str) -> str:
    return f"\n{name} {arguments}"


def _begun(index: int, call: Json) -> Json:
    return {"tool_calls": [{"index": index, **call}]}


def _function(call_id: str, name: str, arguments: str) -> Json:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _custom(call_id: str, name: str, text: str) -> Json:
    return {"id": call_id, "type": "custom", "custom": {"name": name, "input": text}}
