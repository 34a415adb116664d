"""Arguments that are written as plain text, typed by the tool's schema."""

from __future__ import annotations

import json
import re

from runner.chat.tool_formats.schemas import ALL_TYPES, Schema, type_of, types_of

_SURROGATE = re.compile("[\ud800-\udfff]")


def json_of_text(text: str, schema: Schema | None) -> str:
    """The JSON text of a value, of the first type among those its schema allows that it can be.

    Without a schema a value that reads as JSON is taken as that, and everything else as a string.
    """
    allowed = types_of(schema)
    stripped = text.strip()
    for kind in ALL_TYPES:
        if kind in allowed and kind != "string" and (value := _read(stripped, kind)) is not None:
            return value
    return json.dumps(text, ensure_ascii=False)


def written(value: object) -> str:
    """The JSON text of a value. Raises ValueError for numbers that JSON has not."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    # Half a pair of surrogates can be told by its code alone.
    return text if _SURROGATE.search(text) is None else json.dumps(value)


def cut_off(text: str) -> str:
    """The JSON text of a value whose end did not come: so that nobody takes it for whole, it has none either."""
    return json.dumps(text, ensure_ascii=False)[:-1]


def _read(text: str, kind: str) -> str | None:
    if kind == "null":
        return "null" if text.lower() in ("null", "none") else None
    if kind == "boolean":
        return text.lower() if text.lower() in ("true", "false") else None
    try:
        value = json.loads(text, parse_constant=_refuse)
        found = type_of(value)
        if found == kind or (kind == "number" and found == "integer"):
            return written(value)
        if kind == "integer" and found == "number" and float(value).is_integer():
            return str(int(value))
    except (ValueError, RecursionError):
        pass
    return None


def _refuse(constant: str) -> object:
    raise ValueError(constant)
