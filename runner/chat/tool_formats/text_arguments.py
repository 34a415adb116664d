"""Grammars for arguments that are written one by one as plain text, each between a head and an end."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

from runner.chat.tool_formats.format import json_schema
from runner.chat.tool_formats.schemas import Schema, choices_of, part_of, types_of, variants
from runner.chat.tool_formats.terms import ANY_TEXT, Terms

_LARGEST_BOUND = 5000
"""Longer texts are not counted: each character would cost the compiler a state."""
_BARE_VALUES = {"null": "null", "boolean": "true|false", "integer": "-?[0-9]+", "number": r"-?[0-9]+(\.[0-9]+)?"}
"""Expressions for the values of a type, as far as one can tell them."""


def argument_rules(
    prefix: str, schema: Schema, terms: Terms, head: Callable[[str], str], end: str
) -> tuple[str, tuple[str, ...]]:
    """A Lark expression for all arguments of a schema in its order, and the rules it needs.

    Those that are not required may be left out.
    """
    properties = schema.get("properties")
    required = schema.get("required")
    wanted = set(required) if isinstance(required, list) else set()
    parts, rules = [], []
    for index, (name, its_schema) in enumerate(properties.items() if isinstance(properties, Mapping) else ()):
        rule = f"{prefix}_{index}"
        value, more = _value(rule, part_of(schema, its_schema), terms, end)
        rules.append(f"{rule}: {terms.literal(head(name))} {value}")
        rules.extend(more)
        parts.append(rule if name in wanted else f"{rule}?")
    return " ".join(parts) or '""', tuple(rules)


def text_pattern(schema: Schema) -> str:
    """An expression of regexes for a string as its schema bounds it."""
    least, most = whole_number(schema, "minLength") or 0, whole_number(schema, "maxLength")
    counted = most if most is not None and most <= _LARGEST_BOUND else ""
    bounds = f"{{{min(least, _LARGEST_BOUND)},{counted}}}" if least or counted != "" else "*"
    pattern = schema.get("pattern")
    if not isinstance(pattern, str):
        return f"/(?s:.){bounds}/"
    before = "" if pattern.startswith("^") else "(?s:.*)"
    is_ended = pattern.endswith("$") and not pattern.endswith("\\$")
    inner = pattern.removeprefix("^")
    inner = inner.removesuffix("$") if is_ended else inner
    matching = f"/{before}({inner.replace('/', chr(92) + '/')}){'' if is_ended else '(?s:.*)'}/"
    return matching if bounds == "*" else f"/(?s:.){bounds}/ & {matching}"


def whole_number(schema: Schema, key: str) -> int | None:
    """A bound that a schema sets; None where it sets none."""
    value = schema.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _value(rule: str, schema: Schema, terms: Terms, end: str) -> tuple[str, tuple[str, ...]]:
    """An expression for a value with its end, and the rules it needs."""
    if "string" not in types_of(schema):
        return f"{rule}_value {terms.literal(end)}", (f"{rule}_value: {json_schema(schema)}",)
    possible = variants(schema)
    texts = _listed(possible)
    if texts is not None:
        return f"({' | '.join(map(terms.literal, texts))}) {terms.literal(end)}", ()
    return terms.closed(rule, " | ".join(f"({_pattern(one)})" for one in possible), end)


def _listed(possible: Sequence[Schema]) -> list[str] | None:
    """Every text that a value can be, where the schemas tell them all."""
    texts: list[str] = []
    for one in possible:
        kind = one.get("type")
        choices = [None] if kind == "null" else [True, False] if kind == "boolean" else choices_of(one)
        if choices is None:
            return None
        texts += map(_text, choices)
    return texts


def _pattern(schema: Schema) -> str:
    choices = choices_of(schema)
    if choices is not None:
        return " | ".join(json.dumps(_text(choice)) for choice in choices)
    kinds = types_of(schema)
    if kinds == {"string"}:
        return text_pattern(schema)
    # Beside a text, what is inside an object or a list is left to the model.
    return f"/{'|'.join(_BARE_VALUES[kind] for kind in sorted(kinds))}/" if kinds <= _BARE_VALUES.keys() else ANY_TEXT


def _text(choice: object) -> str:
    return choice if isinstance(choice, str) else json.dumps(choice)
