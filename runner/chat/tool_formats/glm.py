"""Calls as a name and pairs of `<arg_key>` and `<arg_value>`: GLM 4.5 to 4.7."""

from __future__ import annotations

import json
from collections.abc import Sequence

from runner.chat.tool_formats.calls import Sink
from runner.chat.tool_formats.format import Grammar, ToolFormat, alternatives
from runner.chat.tool_formats.schemas import property_schema
from runner.chat.tool_formats.source import Emit, Source, Steps, collect, until
from runner.chat.tool_formats.terms import Terms
from runner.chat.tool_formats.text_arguments import argument_rules
from runner.chat.tool_formats.values import cut_off, json_of_text
from runner.chat.types import Tool

_OPENING, _CLOSING = "<tool_call>", "</tool_call>"
_KEY, _KEY_END = "<arg_key>", "</arg_key>"
_VALUE, _VALUE_END = "<arg_value>", "</arg_value>"


def _is_in(template: str) -> bool:
    return _KEY in template and _VALUE in template


def _read(source: Source, sink: Sink) -> Steps[None]:
    while (yield from until(source, (_OPENING,), sink.content)):
        start = source.position - len(_OPENING)
        name, marker = yield from collect(source, (_KEY, _CLOSING))
        arguments = sink.start_call(name.strip())
        if arguments is None:
            if marker == _KEY:
                yield from collect(source, (_CLOSING,))
            sink.content(source.since(start))
            continue
        arguments("{")
        if marker != _KEY or (yield from _pairs(source, sink.tools[name.strip()], arguments)):
            arguments("}")


def _pairs(source: Source, tool: Tool, arguments: Emit) -> Steps[bool]:
    """Every pair, from behind the first key's tag to the end of the call; False when one is cut off."""
    seen: set[str] = set()
    marker: str | None = _KEY
    while marker == _KEY:
        key, _ = yield from collect(source, (_KEY_END,))
        _, opening = yield from collect(source, (_VALUE, _CLOSING))
        if opening != _VALUE:
            return opening is not None
        value, ending = yield from collect(source, (_VALUE_END,))
        key = key.strip()
        if key not in seen:
            schema = property_schema(tool.schema, key)
            text = json_of_text(value, schema) if ending is not None else cut_off(value)
            arguments(f"{', ' if seen else ''}{json.dumps(key, ensure_ascii=False)}: {text}")
            seen.add(key)
        if ending is None:
            return False
        _, marker = yield from collect(source, (_KEY, _CLOSING))
    return True


def _body(tools: Sequence[Tool], terms: Terms, is_parallel: bool) -> Grammar:
    bodies = []
    for index, tool in enumerate(tools):
        arguments, rules = argument_rules(
            f"argument_{index}", tool.schema, terms, lambda name: f"{_KEY}{name}{_KEY_END}\n{_VALUE}", f"{_VALUE_END}\n"
        )
        bodies.append((f"{terms.literal(tool.name + chr(10))} {arguments} {terms.literal(_CLOSING)}", rules))
    return alternatives("call", bodies)


GLM = ToolFormat(
    "glm", _is_in, _read, _body, opening=_OPENING,
    markers=(_OPENING, _CLOSING, _KEY, _KEY_END, _VALUE, _VALUE_END),
)  # fmt: skip
