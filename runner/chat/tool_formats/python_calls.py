"""Calls written as in Python, `name(key="value", …)`, read without running anything."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping, Sequence

from runner.chat.tool_formats.calls import Sink
from runner.chat.tool_formats.format import Grammar, alternatives, json_schema, ordered
from runner.chat.tool_formats.schemas import property_schema
from runner.chat.tool_formats.source import Source, Steps, peek, skip_blanks, take
from runner.chat.tool_formats.terms import Terms
from runner.chat.tool_formats.values import written
from runner.chat.types import Tool

_MAX_CHARACTERS = 1 << 20
_MAX_DEPTH = 64
_TOKEN = re.compile(r""""(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^"'()\[\]{},\n]+|.""", re.DOTALL)
"""A text with its quotation marks, what stands between marks, or one mark."""
_CONSTANTS = {"true": True, "false": False, "null": None, "none": None}


class _NotACall(Exception):
    pass


def read_python_calls(source: Source, sink: Sink) -> Steps[int]:
    """Read calls with commas or line ends between them; how many there were. What is not a call stays unread."""
    count = 0
    while True:
        yield from skip_blanks(source)
        if count and (yield from take(source, ",")):
            yield from skip_blanks(source)
        begin = source.position
        text = yield from _call_text(source)
        call = _parse(text) if text is not None else None
        emit = sink.start_call(call[0]) if call is not None else None
        if call is None or emit is None:
            source.position = begin
            return count
        emit(call[1])
        count += 1


def python_calls(tools: Sequence[Tool], terms: Terms) -> Grammar:
    """The rule `call`: a tool's name with its arguments as keywords, their values in JSON."""
    bodies = []
    for index, tool in enumerate(tools):
        properties, required = tool.schema.get("properties"), tool.schema.get("required")
        rules, parts = [], []
        for place, name in enumerate(properties if isinstance(properties, Mapping) else ()):
            rule = f"argument_{index}_{place}"
            rules.append(f"{rule}: {terms.literal(name + '=')} {rule}_value")
            rules.append(f"{rule}_value: {json_schema(property_schema(tool.schema, name) or {})}")
            parts.append((rule, isinstance(required, list) and name in required))
        inside = ordered(parts, terms.literal(", "))
        bodies.append((f"{terms.literal(tool.name + '(')} {inside} {terms.literal(')')}", rules))
    return alternatives("call", bodies)


def _call_text(source: Source) -> Steps[str | None]:
    """A name and everything to the bracket that closes its arguments; None when the text is no such thing."""
    start = source.position
    while (character := (yield from peek(source))) and (character.isalnum() or character in "_.-"):
        source.position += 1
    if source.position == start or character != "(":
        return None
    depth = 0
    quote = ""
    while character := (yield from peek(source)):
        source.position += 1
        if source.position - start > _MAX_CHARACTERS:
            return None
        if quote:
            if character == "\\":
                yield from peek(source)
                source.position += 1
            elif character == quote:
                quote = ""
        elif character in "\"'":
            quote = character
        elif character in "([{":
            depth += 1
            if depth > _MAX_DEPTH:
                return None
        elif character in ")]}":
            depth -= 1
            if depth == 0:
                return source.since(start)
    return None


def _parse(text: str) -> tuple[str, str] | None:
    """A call's name and the JSON text of its arguments."""
    name, _, inside = text[:-1].partition("(")
    arguments: dict[str, object] = {}
    try:
        for part in _parts(inside):
            key, equals, value = part.partition("=")
            key = key.strip()
            if not equals or not key or key in arguments:
                return None
            arguments[key] = _value_of(value.strip())
        return name, written(arguments)
    except (_NotACall, SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _parts(inside: str) -> Iterator[str]:
    """What stands between the outer commas. Line ends within quotation marks are escaped, as Python wants them."""
    part, depth = "", 0
    for match in _TOKEN.finditer(inside):
        token = match.group()
        if token == "," and not depth:
            yield part
            part = ""
            continue
        depth += (token in "([{") - (token in ")]}")
        part += token.replace("\n", "\\n") if len(token) > 1 else " " if token == "\n" else token
    if part.strip():
        yield part


def _value_of(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return _value(ast.parse(text, mode="eval").body)


def _value(node: ast.expr) -> object:
    match node:
        case ast.Constant(value=str() | int() | float() | bool() | None):
            return node.value
        case ast.Name(id=name) if name.lower() in _CONSTANTS:
            return _CONSTANTS[name.lower()]
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return -number
        case ast.List(elts=elements) | ast.Tuple(elts=elements):
            return [_value(element) for element in elements]
        case ast.Dict(keys=keys, values=values):
            if all(isinstance(key, ast.Constant) for key in keys):
                return {
                    str(key.value): _value(value)
                    for key, value in zip(keys, values, strict=True)
                    if isinstance(key, ast.Constant)
                }
    raise _NotACall
