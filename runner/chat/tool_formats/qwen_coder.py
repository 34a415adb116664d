"""Calls as `<function=name>` with a tag for each parameter: Qwen3-Coder, Qwen3.5, Nemotron 3."""

from __future__ import annotations

import json
from collections.abc import Sequence

from runner.chat.tool_formats.calls import Sink
from runner.chat.tool_formats.format import Grammar, ToolFormat, alternatives, framed
from runner.chat.tool_formats.schemas import property_schema
from runner.chat.tool_formats.source import Emit, Source, Steps, collect, skip_blanks, take, until
from runner.chat.tool_formats.terms import Terms
from runner.chat.tool_formats.text_arguments import argument_rules
from runner.chat.tool_formats.values import cut_off, json_of_text
from runner.chat.types import Tool

_OPENING, _CLOSING = "<tool_call>", "</tool_call>"
_FUNCTION, _FUNCTION_END = "<function=", "</function>"
_PARAMETER, _PARAMETER_END = "<parameter=", "</parameter>"


def _is_in(template: str) -> bool:
    return _FUNCTION in template and _PARAMETER in template


def _read(source: Source, sink: Sink) -> Steps[None]:
    # The models sometimes leave the outer tag out.
    while opening := (yield from until(source, (_OPENING, _FUNCTION), sink.content)):
        start = source.position - len(opening)
        if opening == _OPENING:
            yield from skip_blanks(source)
            if not (yield from take(source, _FUNCTION)):
                yield from collect(source, (_CLOSING,))
                sink.content(source.since(start))
                continue
        yield from _function(source, sink, start)


def _function(source: Source, sink: Sink, start: int) -> Steps[None]:
    name, marker = yield from collect(source, (">", "\n", "<"))
    arguments = sink.start_call(name.strip()) if marker == ">" else None
    if arguments is None:
        yield from collect(source, (_CLOSING,))
        sink.content(source.since(start))
        return
    arguments("{")
    if (yield from _parameters(source, sink.tools[name.strip()], arguments)):
        arguments("}")
    yield from skip_blanks(source)
    yield from take(source, _CLOSING)


def _parameters(source: Source, tool: Tool, arguments: Emit) -> Steps[bool]:
    """Every parameter of a call; False when one is cut off."""
    seen: set[str] = set()
    while True:
        _, marker = yield from collect(source, (_PARAMETER, _FUNCTION_END, _CLOSING))
        if marker != _PARAMETER:
            if marker == _CLOSING:
                source.position -= len(_CLOSING)
            return True
        name, _ = yield from collect(source, (">",))
        value, ending = yield from collect(source, (_PARAMETER_END, "\n" + _PARAMETER, _FUNCTION_END))
        if ending is not None and ending != _PARAMETER_END:
            source.position -= len(ending.removeprefix("\n"))
        name = name.strip()
        if name not in seen:
            value = value.removeprefix("\n")
            schema = property_schema(tool.schema, name)
            text = json_of_text(value.removesuffix("\n"), schema) if ending is not None else cut_off(value)
            arguments(f"{', ' if seen else ''}{json.dumps(name, ensure_ascii=False)}: {text}")
            seen.add(name)
        if ending is None:
            return False


def _body(tools: Sequence[Tool], terms: Terms, is_parallel: bool) -> Grammar:
    bodies = []
    for index, tool in enumerate(tools):
        arguments, rules = argument_rules(
            f"argument_{index}", tool.schema, terms, lambda name: f"{_PARAMETER}{name}>\n", f"\n{_PARAMETER_END}\n"
        )
        head, end = terms.literal(f"{_FUNCTION}{tool.name}>\n"), terms.literal(_FUNCTION_END)
        bodies.append((f"{head} {arguments} {end}", rules))
    return framed(terms, alternatives("call", bodies), "\n", f"\n{_CLOSING}")


QWEN_CODER = ToolFormat("qwen_coder", _is_in, _read, _body, opening=_OPENING, markers=(_OPENING, _CLOSING))
