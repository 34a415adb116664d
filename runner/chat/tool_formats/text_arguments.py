"""Grammars for arguments that are written one by one, each between a head and an end."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from runner.chat.tool_formats.format import Terms, json_schema
from runner.chat.tool_formats.values import types_of


def argument_rules(
    prefix: str, schema: Mapping[str, Any], terms: Terms, head: Callable[[str], str], end: str
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
        value, more = _value(rule, its_schema if isinstance(its_schema, Mapping) else {}, terms, end)
        rules.append(f"{rule}: {terms.literal(head(name))} {value}")
        rules.extend(more)
        parts.append(rule if name in wanted else f"{rule}?")
    return " ".join(parts) or '""', tuple(rules)


def _value(rule: str, schema: Mapping[str, Any], terms: Terms, end: str) -> tuple[str, tuple[str, ...]]:
    """An expression for a value with its end."""
    if "string" not in types_of(schema):
        return f"{rule}_value {terms.literal(end)}", (f"{rule}_value: {json_schema(schema)}",)
    choices = schema.get("enum")
    if isinstance(choices, list) and choices:
        texts = " | ".join(terms.literal(one if isinstance(one, str) else json.dumps(one)) for one in choices)
        return f"({texts}) {terms.literal(end)}", ()
    if not is_bounded(schema):
        text = f"{rule}_text"
        return text, (f"{text}[suffix={json.dumps(end)}]: /(?s:.*)/",)
    text, rules = bounded_text(rule, schema)
    return f"{text} {terms.literal(end)}", rules


def is_bounded(schema: Mapping[str, Any]) -> bool:
    """Whether a schema says more of a string than that it is one."""
    return any(key in schema for key in ("minLength", "maxLength", "pattern"))


def bounded_text(rule: str, schema: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """A terminal for a bare string of this length and pattern, without `<`, so that its end is certain."""
    least, most = schema.get("minLength", 0), schema.get("maxLength", "")
    bounds = f"{{{least},{most}}}" if least or most != "" else "*"
    expression = f"/[^<]{bounds}/"
    if isinstance(pattern := schema.get("pattern"), str):
        before = "" if pattern.startswith("^") else "(?s:.*)"
        after = "" if pattern.endswith("$") and not pattern.endswith("\\$") else "(?s:.*)"
        inner = pattern.removeprefix("^")
        inner = inner if after else inner.removesuffix("$")
        expression += f" & /{before}({inner.replace('/', chr(92) + '/')}){after}/"
    name = f"TEXT_{rule.upper()}"
    return name, (f"{name}: {expression}",)
