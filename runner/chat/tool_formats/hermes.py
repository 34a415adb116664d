"""Calls as JSON objects between `<tool_call>` tags: Hermes, Qwen 2.5 and 3, Granite 4, SmolLM3 and many more."""

from __future__ import annotations

from collections.abc import Sequence

from runner.chat.tool_formats.calls import Sink
from runner.chat.tool_formats.format import Grammar, ToolFormat, framed, json_calls
from runner.chat.tool_formats.regions import tagged_call
from runner.chat.tool_formats.source import Source, Steps, until
from runner.chat.tool_formats.terms import Terms
from runner.chat.types import Tool

_OPENING, _CLOSING = "<tool_call>", "</tool_call>"


def _is_in(template: str) -> bool:
    return _OPENING in template


def _read(source: Source, sink: Sink) -> Steps[None]:
    while (yield from until(source, (_OPENING,), sink.content)):
        yield from tagged_call(source, sink, source.position - len(_OPENING), _CLOSING)


def _body(tools: Sequence[Tool], terms: Terms, is_parallel: bool) -> Grammar:
    return framed(terms, json_calls(tools, terms), "\n", "\n" + _CLOSING)


HERMES = ToolFormat("hermes", _is_in, _read, _body, opening=_OPENING, markers=(_OPENING, _CLOSING))
