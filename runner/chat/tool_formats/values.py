"""Arguments that are written as plain text, typed by the tool's schema."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_ORDER = ("null", "boolean", "integer", "number", "array", "object", "string")


def json_of_text(text: str, schema: Mapping[str, Any] | None) -> str:
    """The JSON text of a value, of the first type among those its schema allows that it can be.

    Without a schema a value that reads as JSON is taken as that, and everything else as a string.
    """
    allowed = types_of(schema)
    stripped = text.strip()
    for kind in _ORDER:
        if kind in allowed and kind != "string" and (value := _read(stripped, kind)) is not None:
            return value
    return json.dumps(text, ensure_ascii=False)


def property_schema(schema: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    """The schema of one argument, if the tool's schema has one."""
    properties = schema.get("properties")
    found = properties.get(name) if isinstance(properties, Mapping) else None
    return found if isinstance(found, Mapping) else None


def types_of(schema: Mapping[str, Any] | None) -> frozenset[str]:
    """The JSON types that a value of this schema may have; all when it does not say."""
    if schema is None:
        return frozenset(_ORDER)
    kind = schema.get("type")
    if isinstance(kind, str):
        return frozenset((kind,))
    if isinstance(kind, list):
        return frozenset(one for one in kind if isinstance(one, str))
    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        return frozenset(_type_of(value) for value in values) if isinstance(values, list) else frozenset(_ORDER)
    options = [option for key in ("anyOf", "oneOf") for option in schema.get(key) or () if isinstance(option, Mapping)]
    return frozenset().union(*(types_of(option) for option in options)) if options else frozenset(_ORDER)


def _read(text: str, kind: str) -> str | None:
    if kind == "null":
        return "null" if text.lower() in ("null", "none") else None
    if kind == "boolean":
        return text.lower() if text.lower() in ("true", "false") else None
    try:
        value = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    found = _type_of(value)
    if found == kind or (kind == "number" and found == "integer"):
        return json.dumps(value, ensure_ascii=False)
    if kind == "integer" and found == "number" and float(value).is_integer():
        return str(int(value))
    return None


def _type_of(value: object) -> str:
    for kind, types in (
        ("null", type(None)),
        ("boolean", bool),
        ("integer", int),
        ("number", float),
        ("array", list),
        ("object", dict),
    ):
        if isinstance(value, types):
            return kind
    return "string"


def _refuse(constant: str) -> object:
    raise ValueError(constant)
