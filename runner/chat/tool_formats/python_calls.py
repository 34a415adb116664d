"""Calls written as in Python, `name(key="value", …)`, read without running anything."""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence

from runner.chat.tool_formats.calls import Sink
from runner.chat.tool_formats.format import Grammar, Terms, alternatives, json_schema, ordered
from runner.chat.tool_formats.source import Source, Steps, peek, skip_blanks, take
from runner.chat.tool_formats.values import property_schema
from runner.chat.types import Tool

_MAX_CHARACTERS = 1 << 20
_MAX_DEPTH = 64
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
        properties = tool.schema.get("properties") or {}
        required = tool.schema.get("required") or []
        rules, parts = [], []
        for place, name in enumerate(name for name in properties if name.isidentifier()):
            rule = f"argument_{index}_{place}"
            rules.append(f"{rule}: {terms.literal(name + '=')} {rule}_value")
            rules.append(f"{rule}_value: {json_schema(property_schema(tool.schema, name) or {})}")
            parts.append((rule, name in required))
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
    name, _, inside = text.partition("(")
    try:
        tree = ast.parse(f"_({inside}".replace("\n", " "), mode="eval").body
        if not isinstance(tree, ast.Call) or tree.args:
            return None
        arguments = {str(keyword.arg): _value(keyword.value) for keyword in tree.keywords if keyword.arg}
        if len(arguments) != len(tree.keywords):
            return None
        return name, json.dumps(arguments, ensure_ascii=False, allow_nan=False)
    except (_NotACall, SyntaxError, ValueError, RecursionError, MemoryError):
        return None


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
