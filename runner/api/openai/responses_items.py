"""What a response is made of, on its way in and out: items, their records, and the conversation they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runner.api.media_parts import MediaPart, join_parts
from runner.api.openai.custom_tools import arguments_of
from runner.chat.types import Message, ToolCall

Json = dict[str, object]

_GUIDES = ("system", "developer")
"""Roles of whoever tells the model how to answer."""


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a message: `input_text`, `input_image`, `input_audio`, `output_text` or `refusal`."""

    kind: str
    text: str
    """Of an image its URL, of a sound its base64."""
    logprobs: tuple[Json, ...] = ()
    media: MediaPart | None = None

    def record(self) -> Json:
        if self.kind == "refusal":
            return {"type": self.kind, "refusal": self.text}
        if self.media is not None and self.kind == "input_image":
            return {"type": self.kind, "image_url": self.text, "detail": "auto"}
        if self.media is not None:
            form = "wav" if self.media.data[:4] == b"RIFF" else "mp3"
            return {"type": self.kind, "input_audio": {"data": self.text, "format": form}}
        if self.kind == "output_text":
            return {"type": self.kind, "annotations": [], "logprobs": list(self.logprobs), "text": self.text}
        return {"type": self.kind, "text": self.text}


@dataclass(frozen=True, slots=True)
class MessageItem:
    """What a user, the system or the model says."""

    id: str
    role: str
    parts: tuple[Part, ...]
    status: str = "completed"

    def record(self) -> Json:
        content = [part.record() for part in self.parts]
        return {"id": self.id, "type": "message", "status": self.status, "role": self.role, "content": content}

    @property
    def text(self) -> str:
        """Of a message without media."""
        return ("" if self.role == "assistant" else "\n").join(part.text for part in self.parts)

    @property
    def has_media(self) -> bool:
        return any(part.media is not None for part in self.parts)

    def message(self) -> Message:
        text, media = join_parts([part.media or part.text for part in self.parts])
        return Message("system" if self.role in _GUIDES else self.role, text, media=media)


@dataclass(frozen=True, slots=True)
class ReasoningItem:
    """What the model thought."""

    id: str
    text: str
    summary: tuple[str, ...] = ()
    """Texts that a client sent; the model's own thoughts are told whole."""
    status: str = "completed"

    def record(self) -> Json:
        return {
            "id": self.id,
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": text} for text in self.summary],
            "content": [{"type": "reasoning_text", "text": self.text}] if self.text else [],
            "status": self.status,
        }


@dataclass(frozen=True, slots=True)
class CallItem:
    """A tool that the model asked for."""

    id: str
    call_id: str
    name: str
    arguments: str
    status: str = "completed"

    def record(self) -> Json:
        return {
            "id": self.id,
            "type": "function_call",
            "status": self.status,
            "call_id": self.call_id,
            "name": self.name,
            "arguments": self.arguments,
        }


@dataclass(frozen=True, slots=True)
class ResultItem:
    """What a tool answered."""

    id: str
    call_id: str
    parts: tuple[Part, ...]
    name: str | None = None
    status: str = "completed"

    def record(self) -> Json:
        has_media = any(part.media is not None for part in self.parts)
        return {
            "id": self.id,
            "type": "function_call_output",
            "status": self.status,
            "call_id": self.call_id,
            "output": [part.record() for part in self.parts] if has_media else self.message(None).content,
            **({"name": self.name} if self.name else {}),
        }

    def message(self, name: str | None) -> Message:
        """As the tool of this name says it."""
        text, media = join_parts([part.media or part.text for part in self.parts])
        return Message("tool", text, tool_name=name, tool_call_id=self.call_id or None, media=media)


@dataclass(frozen=True, slots=True)
class CustomCallItem:
    """A tool whose input is a text, that the model asked for."""

    id: str
    call_id: str
    name: str
    input: str
    status: str = "completed"

    def record(self) -> Json:
        return {
            "id": self.id,
            "type": "custom_tool_call",
            "status": self.status,
            "call_id": self.call_id,
            "name": self.name,
            "input": self.input,
        }


@dataclass(frozen=True, slots=True)
class CustomResultItem(ResultItem):
    """What such a tool answered."""

    def record(self) -> Json:
        return ResultItem.record(self) | {"type": "custom_tool_call_output"}


Item = MessageItem | ReasoningItem | CallItem | CustomCallItem | ResultItem


@dataclass(frozen=True, slots=True)
class Reading:
    """What a model reads for a response."""

    earlier: tuple[Item, ...]
    """Of the response or conversation that it goes on from."""
    fresh: tuple[Item, ...]
    """What came with the request."""

    @property
    def items(self) -> tuple[Item, ...]:
        return (*self.earlier, *self.fresh)


def conversation(instructions: str | None, items: Sequence[Item]) -> tuple[Message, ...]:
    """The items as messages; thoughts, text and calls that belong together become one turn of the model.

    Instructions and the system's messages behind them are one, since many templates take only one.
    """
    opening = [instructions] if instructions else []
    rest = list(items)
    while rest and isinstance(rest[0], MessageItem) and rest[0].role in _GUIDES and not rest[0].has_media:
        opening.append(rest.pop(0).text)  # type: ignore[union-attr]  # it is a message
    turns = _Turns([Message("system", "\n\n".join(opening))] if opening else [])
    for item in rest:
        turns.add(item)
    turns.close()
    return tuple(turns.messages)


class _Turns:
    """Puts the messages together; the model's turn that is being put together is open until something else comes."""

    def __init__(self, messages: list[Message]) -> None:
        self.messages = messages
        self._thoughts = ""
        self._text = ""
        self._calls: tuple[ToolCall, ...] = ()
        self._names: dict[str, str] = {}

    def add(self, item: Item) -> None:
        if isinstance(item, ReasoningItem):
            if self._text or self._calls:
                self.close()
            self._thoughts += item.text or "\n".join(item.summary)
        elif isinstance(item, CallItem):
            if item.status == "incomplete":
                # Templates read arguments as an object; what was cut off is none.
                self._text += f"{item.name}({item.arguments}"
                return
            self._called(item, item.arguments)
        elif isinstance(item, CustomCallItem):
            self._called(item, arguments_of(item.input))
        elif isinstance(item, ResultItem):
            self.close()
            self.messages.append(item.message(item.name or self._names.get(item.call_id)))
        elif item.role == "assistant":
            if self._text or self._calls:
                self.close()
            self._text = item.text
            if not self._text:
                self.messages.append(Message("assistant", "", thinking=self._take_thoughts()))
        else:
            self.close()
            self.messages.append(item.message())

    def _called(self, item: CallItem | CustomCallItem, arguments: str) -> None:
        self._names[item.call_id] = item.name
        self._calls += (ToolCall(item.call_id, item.name, arguments),)

    def close(self) -> None:
        """End the model's turn, if one is open."""
        if self._text or self._calls:
            thoughts = self._take_thoughts()
            self.messages.append(Message("assistant", self._text, thinking=thoughts, tool_calls=self._calls))
        self._thoughts, self._text, self._calls = "", "", ()

    def _take_thoughts(self) -> str | None:
        thoughts, self._thoughts = self._thoughts, ""
        return thoughts or None
