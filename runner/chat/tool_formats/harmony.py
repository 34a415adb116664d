"""Channels of messages: thinking, calls addressed to a function, and the final answer (gpt-oss)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from runner.chat.tool_formats.calls import Sink
from runner.chat.tool_formats.format import Grammar, ToolFormat, alternatives, json_schema
from runner.chat.tool_formats.source import Emit, Source, Steps, collect, until
from runner.chat.tool_formats.terms import Terms
from runner.chat.types import Tool

_START, _CHANNEL, _MESSAGE, _CONSTRAIN = "<|start|>", "<|channel|>", "<|message|>", "<|constrain|>"
_ENDS = ("<|end|>", "<|call|>", "<|return|>")
_OPENING = f"{_CHANNEL}commentary to=functions."
_RECIPIENT = re.compile(r"to=(?:functions\.)?([^\s<]+)")


def _is_in(template: str) -> bool:
    return _CHANNEL in template and _MESSAGE in template


def _read(source: Source, sink: Sink) -> Steps[None]:
    while (yield from until(source, (_START, _CHANNEL, *_ENDS), sink.content)):
        start = source.position
        header, marker = yield from collect(source, (_MESSAGE, *_ENDS))
        if marker != _MESSAGE:
            # No message came of it: a header alone says nothing to anybody.
            continue
        emit = _target(header, sink)
        if emit is None:
            _, _ = yield from collect(source, (_START, *_ENDS))
            sink.content(source.since(start))
        else:
            yield from until(source, (_START, *_ENDS), emit)


def _target(header: str, sink: Sink) -> Emit | None:
    """Where a message with this header goes; None for a call of something that was not declared."""
    recipient = _RECIPIENT.search(header)
    if recipient is not None:
        return sink.start_call(recipient.group(1))
    channel = header.rpartition(_CHANNEL)[2].strip().partition(_CONSTRAIN)[0]
    return sink.thinking if channel.startswith("analysis") else sink.content


def _body(tools: Sequence[Tool], terms: Terms, is_parallel: bool) -> Grammar:
    bodies = []
    for index, tool in enumerate(tools):
        rule = f"arguments_{index}"
        head = terms.literal(f"{tool.name} {_CONSTRAIN}json{_MESSAGE}")
        bodies.append((f"{head} {rule} {terms.literal(_ENDS[1])}", (f"{rule}: {json_schema(tool.schema)}",)))
    return alternatives("call", bodies)


HARMONY = ToolFormat(
    "harmony",
    _is_in,
    _read,
    _body,
    opening=_OPENING,
    separator=f"{_START}assistant",
    markers=(_START, _CHANNEL, _MESSAGE, _CONSTRAIN, *_ENDS),
    is_always_read=True,
)
