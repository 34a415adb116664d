"""Which constraints are certainly compiled in a moment: small schemas of the keywords that most schemas are made of."""

from __future__ import annotations

import json
from typing import Any

from runner.llamacpp.constraint_limits import json_parts
from runner.sampling import Constraint, ConstraintKind

MOST_BYTES = 32 * 1024
MOST_NAMES = 500
"""Properties of one object, or values of one enumeration."""
MOST_CHOICES = 50
LONGEST = 1000
"""Items of an array and characters of a string that are counted."""

_TOLD = frozenset({
    "title", "description", "default", "examples", "example", "$schema", "$id", "$comment", "deprecated", "readOnly",
    "writeOnly", "nullable",
})  # fmt: skip
_ASSERTED = frozenset({"type", "properties", "required", "additionalProperties", "items", "enum", "const", "format"})
_COUNTED = frozenset({"minItems", "maxItems", "minLength", "maxLength"})
_NUMBERS = frozenset({"minimum", "maximum"})
_DEFINED = frozenset({"$defs", "definitions"})
_CHOSEN = frozenset({"anyOf", "oneOf", "$ref"})
"""Beside other assertions they are intersected with them; alone they are not."""


def is_plain(constraint: Constraint) -> bool:
    """Whether a constraint needs no trial. Those that are plain cannot intersect anything."""
    if len(constraint.source) > MOST_BYTES:
        return False
    try:
        if constraint.kind is ConstraintKind.JSON_SCHEMA:
            return _is_plain_schema(json.loads(constraint.source))
        return constraint.is_framed and all(map(_is_plain_schema, json_parts(constraint.source)))
    except (ValueError, RecursionError):
        return False


def _is_plain_schema(schema: object) -> bool:
    open_ends: list[object] = [schema]
    while open_ends:
        node = open_ends.pop()
        if isinstance(node, bool):
            continue
        if not isinstance(node, dict) or not _is_plain_node(node):
            return False
        for keyword, value in node.items():
            if keyword == "properties" or keyword in _DEFINED:
                if not isinstance(value, dict):
                    return False
                open_ends += value.values()
            elif keyword in ("anyOf", "oneOf"):
                open_ends += value
            elif keyword in ("items", "additionalProperties"):
                open_ends.append(value)
    return True


def _is_plain_node(node: dict[str, Any]) -> bool:
    keywords = node.keys() - _TOLD - _DEFINED
    if keywords & _CHOSEN:
        return len(keywords) == 1 and all(_is_short(node[keyword]) for keyword in keywords if keyword != "$ref")
    if not keywords <= _ASSERTED | _COUNTED | _NUMBERS:
        return False
    is_counted = all(isinstance(node[name], int) and node[name] <= LONGEST for name in keywords & _COUNTED)
    return is_counted and all(_is_small(value) for value in node.values())


def _is_small(value: object) -> bool:
    return not isinstance(value, dict | list) or len(value) <= MOST_NAMES


def _is_short(choices: object) -> bool:
    return isinstance(choices, list) and len(choices) <= MOST_CHOICES
