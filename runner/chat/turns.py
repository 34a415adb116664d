"""The same conversation in other turns, for templates that take only some kinds of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import msgspec

from runner.chat.types import Message


def joined_neighbours(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The conversation with neighbours of one role joined; results of tools stay apart."""
    joined: list[Message] = []
    for role, neighbours in itertools.groupby(messages, key=lambda message: message.role):
        group = list(neighbours)
        joined.extend(group if role == "tool" or len(group) == 1 else [_joined(group)])
    return tuple(joined)


def other_shapes(messages: tuple[Message, ...]) -> Iterator[tuple[Message, ...]]:
    """What to try when a template refuses a conversation: roles that alternate, then no role for the system either."""
    alternating = joined_neighbours(messages)
    if alternating != messages:
        yield alternating
    if alternating and alternating[0].role == "system":
        system, *others = alternating
        first = next((index for index, message in enumerate(others) if message.role == "user"), None)
        if first is not None:
            told = f"{system.content}\n\n{others[first].content}"
            others[first] = msgspec.structs.replace(others[first], content=told)
            yield tuple(others)


def _joined(messages: list[Message]) -> Message:
    return msgspec.structs.replace(
        messages[0],
        content="\n\n".join(message.content for message in messages),
        thinking="\n\n".join(message.thinking for message in messages if message.thinking) or None,
        tool_calls=tuple(call for message in messages for call in message.tool_calls),
    )
