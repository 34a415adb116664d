"""Calls as `call:name{key:value}` with strings between marks: FunctionGemma and Gemma 4."""

from __future__ import annotations

import json
from collections.abc import Sequence

from runner.chat.tool_formats.calls import Sink
from runner.chat.tool_formats.format import Grammar, Terms, ToolFormat, alternatives, json_schema, ordered
from runner.chat.tool_formats.source import Source, Steps, collect, until
from runner.chat.tool_formats.text_arguments import bounded_text
from runner.chat.tool_formats.values import json_of_text, property_schema, types_of
from runner.chat.types import Tool

_FUNCTION = ("<start_function_call>", "<end_function_call>", "<escape>")
_GEMMA4 = ("<|tool_call>", "<tool_call|>", '<|"|>')
_HEAD = "call:"
_MAX_DEPTH = 64


class _Malformed(Exception):
    pass


def _is_function_in(template: str) -> bool:
    return _FUNCTION[0] in template


def _is_gemma4_in(template: str) -> bool:
    return _GEMMA4[0] in template


def _read_with(source: Source, sink: Sink, marks: tuple[str, str, str]) -> Steps[None]:
    opening, closing, quote = marks
    while (yield from until(source, (opening,), sink.content)):
        start = source.position - len(opening)
        text, _ = yield from collect(source, (closing,))
        head, brace, inside = text.strip().removeprefix(_HEAD).partition("{")
        try:
            body = _Body(brace + inside, quote)
            value = body.read(0)
            if not isinstance(value, dict):
                raise _Malformed
        except _Malformed:
            sink.content(source.since(start))
            continue
        arguments = sink.start_call(head.strip())
        if arguments is None:
            sink.content(source.since(start))
        else:
            arguments(_typed(value, sink.tools[head.strip()]))


def _read_function(source: Source, sink: Sink) -> Steps[None]:
    yield from _read_with(source, sink, _FUNCTION)


def _read_gemma4(source: Source, sink: Sink) -> Steps[None]:
    yield from _read_with(source, sink, _GEMMA4)


class _Bare(str):
    """A value without quotation marks, to be typed by its schema."""

    __slots__ = ()


class _Body:
    """The inside of a call: objects and lists with bare keys, strings between quotation marks of the format."""

    def __init__(self, text: str, quote: str) -> None:
        self._text = text
        self._quote = quote
        self._at = 0

    def read(self, depth: int) -> object:
        if depth > _MAX_DEPTH:
            raise _Malformed
        self._skip()
        if self._take("{"):
            return self._object(depth)
        if self._take("["):
            return self._list(depth)
        if self._take(self._quote):
            return self._quoted()
        start = self._at
        while self._at < len(self._text) and self._text[self._at] not in ",}]":
            self._at += 1
        return _Bare(self._text[start : self._at].strip())

    def _object(self, depth: int) -> dict[str, object]:
        found: dict[str, object] = {}
        while True:
            self._skip()
            if self._take("}"):
                return found
            key = self._quoted() if self._take(self._quote) else None
            colon = self._text.find(":", self._at)
            if colon < 0:
                raise _Malformed
            key = key if key is not None else self._text[self._at : colon].strip().strip("\"'")
            self._at = colon + 1
            found[key] = self.read(depth + 1)
            self._next("}")

    def _list(self, depth: int) -> list[object]:
        found: list[object] = []
        while True:
            self._skip()
            if self._take("]"):
                return found
            found.append(self.read(depth + 1))
            self._next("]")

    def _next(self, end: str) -> None:
        self._skip()
        if not self._take(",") and self._text[self._at : self._at + 1] != end:
            raise _Malformed

    def _quoted(self) -> str:
        end = self._text.find(self._quote, self._at)
        if end < 0:
            raise _Malformed
        text = self._text[self._at : end]
        self._at = end + len(self._quote)
        return text

    def _skip(self) -> None:
        while self._at < len(self._text) and self._text[self._at].isspace():
            self._at += 1

    def _take(self, literal: str) -> bool:
        if self._text.startswith(literal, self._at):
            self._at += len(literal)
            return True
        return False


def _typed(arguments: dict[str, object], tool: Tool) -> str:
    parts = (f"{json.dumps(name, ensure_ascii=False)}: {_json(value, name, tool)}" for name, value in arguments.items())
    return "{" + ", ".join(parts) + "}"


def _json(value: object, name: str, tool: Tool) -> str:
    schema = property_schema(tool.schema, name)
    return json_of_text(value, schema) if isinstance(value, _Bare) else _plain(value)


def _plain(value: object) -> str:
    if isinstance(value, _Bare):
        return json_of_text(value, None)
    if isinstance(value, dict):
        return (
            "{" + ", ".join(f"{json.dumps(key, ensure_ascii=False)}: {_plain(one)}" for key, one in value.items()) + "}"
        )
    if isinstance(value, list):
        return "[" + ", ".join(map(_plain, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def _body(tools: Sequence[Tool], terms: Terms, marks: tuple[str, str, str]) -> Grammar:
    _, closing, quote = marks
    bodies = []
    for index, tool in enumerate(tools):
        rules: list[str] = []
        expression = _object_rule(tool.schema, f"object_{index}", terms, quote, rules, 0)
        bodies.append((f"{terms.literal(_HEAD + tool.name)} {expression} {terms.literal(closing)}", rules))
    return alternatives("call", bodies)


def _object_rule(schema: object, rule: str, terms: Terms, quote: str, rules: list[str], depth: int) -> str:
    """Adds the rules of an object and returns its expression; properties in their order, those required a must."""
    properties = schema.get("properties") if isinstance(schema, dict) else None
    required = schema.get("required") or [] if isinstance(schema, dict) else []
    names = list(properties) if isinstance(properties, dict) else []
    parts = []
    for place, name in enumerate(names):
        value = _value_rule((properties or {})[name], f"{rule}_{place}", terms, quote, rules, depth)
        parts.append((f"{terms.literal(name + ':')} {value}", name in required))
    rules.append(f"{rule}: {terms.literal('{')} {ordered(parts, terms.literal(','))} {terms.literal('}')}")
    return rule


def _value_rule(schema: object, rule: str, terms: Terms, quote: str, rules: list[str], depth: int) -> str:
    known = schema if isinstance(schema, dict) else {}
    types = types_of(known)
    if types == {"object"} and depth < _MAX_DEPTH:
        return _object_rule(known, rule, terms, quote, rules, depth + 1)
    if types == {"array"} and depth < _MAX_DEPTH:
        item = _value_rule(known.get("items"), f"{rule}_item", terms, quote, rules, depth + 1)
        least, most = known.get("minItems", 0), known.get("maxItems")
        more = f"{{{max(least - 1, 0)},{max(most - 1, 0) if most is not None else ''}}}"
        items = f"{item} ({terms.literal(',')} {item}){more}" if most != 0 else ""
        rules.append(f"{rule}: {terms.literal('[')} ({items}){'' if least else '?'} {terms.literal(']')}")
        return rule
    if "string" not in types:
        rules.append(f"{rule}: {json_schema(known)}")
        return rule
    choices = known.get("enum")
    if isinstance(choices, list) and choices:
        texts = " | ".join(terms.literal(str(one)) for one in choices)
        return f"{terms.literal(quote)} ({texts}) {terms.literal(quote)}"
    text, more_rules = bounded_text(rule, known)
    rules.extend(more_rules)
    rules.append(f"{rule}: {terms.literal(quote)} {text} {terms.literal(quote)}")
    return rule


def _function_body(tools: Sequence[Tool], terms: Terms, is_parallel: bool) -> Grammar:
    return _body(tools, terms, _FUNCTION)


def _gemma4_body(tools: Sequence[Tool], terms: Terms, is_parallel: bool) -> Grammar:
    return _body(tools, terms, _GEMMA4)


FUNCTION_GEMMA = ToolFormat(
    "function_gemma",
    _is_function_in,
    _read_function,
    _function_body,
    opening=_FUNCTION[0],
    separator="",
    markers=_FUNCTION,
)
GEMMA4 = ToolFormat(
    "gemma4", _is_gemma4_in, _read_gemma4, _gemma4_body, opening=_GEMMA4[0], separator="", markers=_GEMMA4
)
