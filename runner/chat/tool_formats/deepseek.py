"""Calls between DeepSeek's own marks, with the arguments in a code block (V3, R1) or bare (V3.1)."""

from __future__ import annotations

from collections.abc import Sequence

from runner.chat.tool_formats.calls import Sink
from runner.chat.tool_formats.format import Grammar, ToolFormat, alternatives, json_schema, listed
from runner.chat.tool_formats.json_text import copy_value
from runner.chat.tool_formats.source import Source, Steps, collect, skip_blanks, take, until
from runner.chat.tool_formats.terms import Terms
from runner.chat.types import Tool

_CALLS_BEGIN, _CALLS_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
_CALL_BEGIN, _CALL_END = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"
_SEPARATOR = "<｜tool▁sep｜>"
_FENCE = "```"
_OPENING = _CALLS_BEGIN + _CALL_BEGIN


def _is_fenced_in(template: str) -> bool:
    return _CALLS_BEGIN in template and f"{_FENCE}json" in template


def _is_bare_in(template: str) -> bool:
    return _CALLS_BEGIN in template and f"{_FENCE}json" not in template


def _read(source: Source, sink: Sink) -> Steps[None]:
    marks = (_CALL_BEGIN, _CALLS_BEGIN, _CALLS_END)
    while marker := (yield from until(source, marks, sink.content)):
        if marker == _CALL_BEGIN:
            yield from _call(source, sink, source.position - len(marker))
            yield from skip_blanks(source)


def _call(source: Source, sink: Sink, start: int) -> Steps[None]:
    head, marker = yield from collect(source, (_SEPARATOR, _CALL_END))
    name = head.strip()
    if marker == _SEPARATOR and name == "function":
        line, _ = yield from collect(source, ("\n", _CALL_END))
        name = line.strip()
    arguments = sink.start_call(name) if marker == _SEPARATOR else None
    if arguments is None:
        if marker != _CALL_END:
            yield from collect(source, (_CALL_END,))
        sink.content(source.since(start))
        return
    yield from skip_blanks(source)
    if (yield from take(source, f"{_FENCE}json")) or (yield from take(source, _FENCE)):
        yield from skip_blanks(source)
    is_whole = yield from copy_value(source, arguments)
    rest, _ = yield from collect(source, (_CALL_END,))
    if not is_whole:
        arguments(rest)


def _body(tools: Sequence[Tool], terms: Terms, is_parallel: bool, head: str, before: str, after: str) -> Grammar:
    bodies = []
    for index, tool in enumerate(tools):
        rule = f"arguments_{index}"
        begin, end = terms.literal(head + tool.name + before), terms.literal(after + _CALL_END)
        bodies.append((f"{begin} {rule} {end}", (f"{rule}: {json_schema(tool.schema)}",)))
    return listed(terms, alternatives("call", bodies), is_parallel, "", _CALL_BEGIN, _CALLS_END)


def _fenced_body(tools: Sequence[Tool], terms: Terms, is_parallel: bool) -> Grammar:
    return _body(tools, terms, is_parallel, f"function{_SEPARATOR}", f"\n{_FENCE}json\n", f"\n{_FENCE}")


def _bare_body(tools: Sequence[Tool], terms: Terms, is_parallel: bool) -> Grammar:
    return _body(tools, terms, is_parallel, "", _SEPARATOR, "")


_MARKERS = (_CALLS_BEGIN, _CALLS_END, _CALL_BEGIN, _CALL_END, _SEPARATOR)

DEEPSEEK = ToolFormat(
    "deepseek", _is_fenced_in, _read, _fenced_body, opening=_OPENING, many_in_body=True, markers=_MARKERS
)
DEEPSEEK_BARE = ToolFormat(
    "deepseek_bare", _is_bare_in, _read, _bare_body, opening=_OPENING, many_in_body=True, markers=_MARKERS
)
