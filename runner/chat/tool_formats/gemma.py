"""Calls as `call:name{key:value}` with strings between marks: FunctionGemma and Gemma 4."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from runner.chat.tool_formats.calls import Sink
from runner.chat.tool_formats.format import Grammar, ToolFormat, alternatives, json_schema, ordered
from runner.chat.tool_formats.schemas import Schema, choices_of, part_of, property_schema, types_of, variants
from runner.chat.tool_formats.source import Source, Steps, collect, until
from runner.chat.tool_formats.terms import Terms
from runner.chat.tool_formats.text_arguments import text_pattern, whole_number
from runner.chat.tool_formats.values import json_of_text
from runner.chat.types import Tool

_FUNCTION = ("<start_function_call>", "<end_function_call>", "<escape>")
_GEMMA4 = ("<|tool_call>", "<tool_call|>", '<|"|>')
_HEAD = "call:"
_MAX_DEPTH = 64
_BARE = {"anyOf": [{"type": "number"}, {"type": "boolean"}, {"type": "null"}]}
_FREE_KEY = r"/[\w$.\/-]+( [\w$.\/-]+)*/"
"""The names of entries that a schema does not name."""


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
        rules = _Rules(f"value_{index}", terms, quote)
        arguments = rules.arguments(tool.schema)
        bodies.append((f"{terms.literal(_HEAD + tool.name)} {arguments} {terms.literal(closing)}", rules.lines))
    return alternatives("call", bodies)


class _Rules:
    """The rules of one tool's arguments, one for each different schema, so that schemas may refer to themselves."""

    def __init__(self, prefix: str, terms: Terms, quote: str) -> None:
        self.lines: list[str] = []
        self._prefix = prefix
        self._terms = terms
        self._quote = quote
        self._names: dict[str, str] = {}

    def arguments(self, schema: Schema) -> str:
        """The rule of a tool's arguments; properties in their order, those required a must."""
        return self._add(f"{self._prefix}_arguments", self._properties(schema))

    def _value(self, schema: Schema) -> str:
        key = json.dumps(schema, sort_keys=True)
        name = self._names.get(key)
        if name is None:
            name = self._names[key] = f"{self._prefix}_{len(self._names)}"
            possible = [self._variant(one, f"{name}_{index}") for index, one in enumerate(variants(schema))]
            self._add(name, " | ".join(possible))
        return name

    def _variant(self, schema: Schema, name: str) -> str:
        choices = choices_of(schema)
        if choices is not None:
            texts = (self._quoted(one) if isinstance(one, str) else json.dumps(json.dumps(one)) for one in choices)
            return f"({' | '.join(texts)})"
        kinds = types_of(schema)
        if kinds == {"object"}:
            return self._object(schema)
        if kinds == {"array"}:
            return self._array(schema)
        if "string" not in kinds:
            return self._add(name, json_schema(schema))
        text, rules = self._terms.closed(name, text_pattern(schema), self._quote)
        self.lines.extend(rules)
        quoted = f"{self._terms.literal(self._quote)} {text}"
        # Where anything may stand, lists and objects are left out: nobody could say where they end.
        return quoted if kinds == {"string"} else f"{quoted} | {self._add(f'{name}_bare', json_schema(_BARE))}"

    def _object(self, schema: Schema) -> str:
        more = schema.get("additionalProperties")
        if schema.get("properties") or more is False:
            return self._properties(schema)
        pair = f"{_FREE_KEY} {self._literal(':')} {self._value(part_of(schema, more))}"
        return f"{self._literal('{')} ({pair} ({self._literal(',')} {pair})*)? {self._literal('}')}"

    def _properties(self, schema: Schema) -> str:
        properties, required = schema.get("properties"), schema.get("required")
        parts = []
        for name, one in properties.items() if isinstance(properties, Mapping) else ():
            value = self._value(part_of(schema, one))
            parts.append((f"{self._literal(name + ':')} {value}", isinstance(required, list) and name in required))
        return f"{self._literal('{')} {ordered(parts, self._literal(','))} {self._literal('}')}"

    def _array(self, schema: Schema) -> str:
        item = self._value(part_of(schema, schema.get("items")))
        least, most = whole_number(schema, "minItems") or 0, whole_number(schema, "maxItems")
        if most == 0:
            return f"{self._literal('[')} {self._literal(']')}"
        further = f"{{{max(least - 1, 0)},{'' if most is None else most - 1}}}"
        items = f"({item} ({self._literal(',')} {item}){further}){'' if least else '?'}"
        return f"{self._literal('[')} {items} {self._literal(']')}"

    def _add(self, name: str, expression: str) -> str:
        self.lines.append(f"{name}: {expression}")
        return name

    def _literal(self, text: str) -> str:
        return self._terms.literal(text)

    def _quoted(self, text: str) -> str:
        return self._literal(f"{self._quote}{text}{self._quote}")


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
