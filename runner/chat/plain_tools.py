"""Conversations with tools, for chat templates that know nothing of them."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from runner.chat.tool_formats.generic import instructions, written_call, written_result
from runner.chat.types import Message, Tool


def without_tools(messages: Sequence[Message], tools: Sequence[Tool]) -> tuple[Message, ...]:
    """The same conversation in messages of text alone: tools told by the system, calls and results written out."""
    written = [_written(message) for message in messages]
    if not tools:
        return tuple(written)
    told = instructions(tools)
    if written and written[0].role == "system":
        first = msgspec.structs.replace(written[0], content=f"{written[0].content}\n\n{told}".strip())
        return (first, *written[1:])
    return (Message("system", told), *written)


def _written(message: Message) -> Message:
    if message.role == "tool":
        return Message("user", written_result(message.content))
    if not message.tool_calls:
        return message
    calls = [written_call(call.name, call.arguments) for call in message.tool_calls]
    content = "\n".join(part for part in (message.content, *calls) if part)
    return msgspec.structs.replace(message, content=content, tool_calls=())
