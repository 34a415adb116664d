"""Calls after `[TOOL_CALLS]`, as a JSON list or as `name[ARGS]{…}`: Mistral, Ministral, Magistral, Devstral."""

from __future__ import annotations

from collections.abc import Sequence

from runner.chat.tool_formats.calls import Sink
from runner.chat.tool_formats.format import Grammar, ToolFormat, alternatives, json_calls, json_schema, listed
from runner.chat.tool_formats.json_text import copy_value
from runner.chat.tool_formats.regions import call_list
from runner.chat.tool_formats.source import Source, Steps, collect, peek, skip_blanks, until
from runner.chat.tool_formats.terms import Terms
from runner.chat.types import Tool

_OPENING, _ARGUMENTS, _CALL_ID = "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"


def _is_in(template: str) -> bool:
    return _OPENING in template and _ARGUMENTS not in template


def _is_newer_in(template: str) -> bool:
    return _OPENING in template and _ARGUMENTS in template


def _read(source: Source, sink: Sink) -> Steps[None]:
    """Both forms, since the models of one family write either."""
    while (yield from until(source, (_OPENING,), sink.content)):
        start = source.position - len(_OPENING)
        yield from skip_blanks(source)
        if (yield from peek(source)) in ("[", "{"):
            yield from call_list(source, sink, start, "")
        else:
            yield from _named_call(source, sink, start)


def _named_call(source: Source, sink: Sink, start: int) -> Steps[None]:
    begin = source.position
    head, marker = yield from collect(source, (_ARGUMENTS, "{", _OPENING))
    name = head.partition(_CALL_ID)[0].strip()
    arguments = sink.start_call(name) if marker in (_ARGUMENTS, "{") else None
    if arguments is None:
        source.position = begin
        sink.content(source.since(start))
        return
    if marker == "{":
        source.position -= 1
    yield from skip_blanks(source)
    yield from copy_value(source, arguments)


def _body(tools: Sequence[Tool], terms: Terms, is_parallel: bool) -> Grammar:
    return listed(terms, json_calls(tools, terms), is_parallel, " [", ", ", "]")


def _newer_body(tools: Sequence[Tool], terms: Terms, is_parallel: bool) -> Grammar:
    bodies = []
    for index, tool in enumerate(tools):
        rule = f"arguments_{index}"
        bodies.append((f"{terms.literal(tool.name + _ARGUMENTS)} {rule}", (f"{rule}: {json_schema(tool.schema)}",)))
    return alternatives("call", bodies)


MISTRAL = ToolFormat(
    "mistral", _is_in, _read, _body, opening=_OPENING, separator="", many_in_body=True, markers=(_OPENING,)
)
MISTRAL_NAMED = ToolFormat(
    "mistral_named",
    _is_newer_in,
    _read,
    _newer_body,
    opening=_OPENING,
    separator="",
    markers=(_OPENING, _ARGUMENTS, _CALL_ID),
)
