"""What a tool-call format is: how its calls are found in text, and the grammar that makes a model write them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runner.chat.tool_formats.calls import Sink
from runner.chat.tool_formats.source import Source, Steps
from runner.chat.tool_formats.terms import Terms
from runner.chat.types import Tool

_NOTES = frozenset({"description", "title", "examples", "default", "deprecated", "$comment", "$schema"})
_NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions"})
"""Keywords whose keys are names of the schema's author."""
_VALUES = frozenset({"enum", "const"})


@dataclass(frozen=True, slots=True)
class Grammar:
    """Lark rules, the first of them named by `start`."""

    start: str
    rules: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """One way to write tool calls.

    An answer with calls is text, then `opening` and what `body` describes, then perhaps
    `separator`, another opening and body, and so on. With `many_in_body` one body holds all calls.
    """

    name: str
    is_in: Callable[[str], bool]
    """Whether a chat template's source asks for this format."""
    read: Callable[[Source, Sink], Steps[None]]
    """Reads a whole answer (without its thinking) into a sink."""
    body: Callable[[Sequence[Tool], Terms, bool], Grammar]
    """The grammar of a call after its opening, by tools, terms, and whether several calls may follow."""
    opening: str = ""
    """The text that a call surely begins with; empty when only the first character would tell."""
    separator: str = "\n"
    many_in_body: bool = False
    markers: tuple[str, ...] = ()
    """Texts that may be control tokens of the vocabulary and are wanted as text all the same."""
    is_always_read: bool = False
    """Whether answers without tools are written in this format too."""


def json_schema(schema: Mapping[str, Any]) -> str:
    """A Lark expression for a value of this schema, in the compact form models are used to.

    Keywords that llguidance does not know are passed over: a tool's schema is a description first.
    """
    guided = {
        **_without_notes(schema),
        "x-guidance": {"lenient": True, "whitespace_flexible": False, "key_separator": ": ", "item_separator": ", "},
    }
    return f"%json {json.dumps(guided)}"


def _without_notes(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema without what only tells about it, at every depth: descriptions are most of what clients send."""
    bare: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _NOTES:
            continue
        if key in _NAMED and isinstance(value, Mapping):
            bare[key] = {name: _bare(one) for name, one in value.items()}
        else:
            bare[key] = value if key in _VALUES else _bare(value)
    return bare


def _bare(value: Any) -> Any:
    if isinstance(value, Mapping):
        return _without_notes(value)
    return [_bare(one) for one in value] if isinstance(value, list) else value


def alternatives(start: str, bodies: Sequence[tuple[str, Sequence[str]]]) -> Grammar:
    """One rule that is any of the bodies, with the further rules that each of them needs."""
    return Grammar(
        start,
        (f"{start}: " + " | ".join(body for body, _ in bodies), *(rule for _, rules in bodies for rule in rules)),
    )


def json_calls(
    tools: Sequence[Tool], terms: Terms, *, name_key: str = "name", arguments_key: str = "arguments", extra: str = ""
) -> Grammar:
    """The rule `call`: an object with a tool's name and arguments of its schema."""
    bodies = []
    for index, tool in enumerate(tools):
        head = f'{{{extra}"{name_key}": {json.dumps(tool.name)}, "{arguments_key}": '
        rule = f"arguments_{index}"
        bodies.append((f"{terms.literal(head)} {rule} {terms.literal('}')}", (f"{rule}: {json_schema(tool.schema)}",)))
    return alternatives("call", bodies)


def ordered(parts: Sequence[tuple[str, bool]], comma: str) -> str:
    """Expressions in their order with commas between; those that are not required may be left out."""
    tail = ""
    """What may follow when something stands before it, and"""
    whole = ""
    """what there may be when nothing does."""
    for expression, is_required in reversed(parts):
        first = f"{expression} {tail}".strip()
        if is_required:
            whole = first
            tail = f"{comma} {expression} {tail}".strip()
        else:
            whole = f"({first} | {whole})" if whole else f"({first})?"
            tail = f"({comma} {expression})? {tail}".strip()
    return whole


def framed(terms: Terms, grammar: Grammar, before: str, after: str) -> Grammar:
    """The grammar with fixed texts around it."""
    return Grammar(
        "framed", (f"framed: {terms.literal(before)} {grammar.start} {terms.literal(after)}", *grammar.rules)
    )


def listed(terms: Terms, grammar: Grammar, is_parallel: bool, before: str, between: str, after: str) -> Grammar:
    """A list of the grammar's calls: one, or as many as wanted."""
    more = f" ({terms.literal(between)} {grammar.start})*" if is_parallel else ""
    rule = f"listed: {terms.literal(before)} {grammar.start}{more} {terms.literal(after)}"
    return Grammar("listed", (rule, *grammar.rules))
