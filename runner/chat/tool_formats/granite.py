"""A list of calls after `<|tool_call|>` or `<tool_call>` without a closing tag: Granite 3."""

from __future__ import annotations

from collections.abc import Sequence

from runner.chat.tool_formats.calls import Sink
from runner.chat.tool_formats.format import Grammar, ToolFormat, json_calls, listed
from runner.chat.tool_formats.regions import call_list
from runner.chat.tool_formats.source import Source, Steps, until
from runner.chat.tool_formats.terms import Terms
from runner.chat.types import Tool

_OPENINGS = ("<|tool_call|>", "<tool_call>")


def _is_in(template: str) -> bool:
    return _OPENINGS[0] in template


def _read(source: Source, sink: Sink) -> Steps[None]:
    while opening := (yield from until(source, _OPENINGS, sink.content)):
        yield from call_list(source, sink, source.position - len(opening), "")


def _body(tools: Sequence[Tool], terms: Terms, is_parallel: bool) -> Grammar:
    return listed(terms, json_calls(tools, terms), is_parallel, "[", ", ", "]")


GRANITE = ToolFormat(
    "granite", _is_in, _read, _body, opening=_OPENINGS[0], separator="", many_in_body=True, markers=_OPENINGS
)
