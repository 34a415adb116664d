"""JSON as Go writes it: compact, maps sorted by their keys, safe inside HTML."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import Any

from runner.chat.go_template.errors import Fault
from runner.chat.go_template.values import GoList, GoMap, Record, TypeNames, is_true, sorted_items

MAX_DEPTH = 200

_SAFE = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"})


def to_json(value: Any) -> str:
    """Raises Fault for what has no JSON: a number that is none, or values nested too deep."""
    return _encode(value, 0)


def _encode(value: Any, depth: int) -> str:
    if depth > MAX_DEPTH:
        raise Fault(f"values are nested more than {MAX_DEPTH} deep")
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return json_number(value)
        case str():
            return json_text(value)
        case Record():
            return _encode_record(value, depth)
        case TypeNames() if len(value) < 2:
            return json_text(value[0]) if value else "null"
        case list():
            if isinstance(value, GoList) and value.is_nil:
                return "null"
            return f"[{','.join(_encode(one, depth + 1) for one in value)}]"
        case dict():
            if isinstance(value, GoMap) and value.is_nil:
                return "null"
            entries = value.items() if isinstance(value, GoMap) and value.is_ordered else sorted_items(value)
            items = (f"{json_text(key)}:{_encode(one, depth + 1)}" for key, one in entries)
            return f"{{{','.join(items)}}}"
        case _:
            raise Fault(f"a {type(value).__name__} has no JSON")


def _encode_record(record: Record, depth: int) -> str:
    items = []
    for field, value in zip(record.type.fields, record.values, strict=True):
        # Only what is empty is left out; a struct never is.
        if not field.omits_empty or is_true(value):
            items.append(f"{json_text(field.json_name)}:{_encode(value, depth + 1)}")
    return f"{{{','.join(items)}}}"


def json_text(text: str) -> str:
    # Bytes that are no UTF-8 become the replacement character.
    whole = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return json.dumps(whole, ensure_ascii=False).translate(_SAFE)


def json_number(value: float) -> str:
    """A `float64`: with an exponent when it is very small or very large. Raises Fault for infinity and the like."""
    if not math.isfinite(value):
        raise Fault("a number that is infinite or none has no JSON")
    size = abs(value)
    if size != 0 and (size < 1e-6 or size >= 1e21):
        digits, _, exponent = f"{value!r}".partition("e")
        return f"{digits}e{int(exponent):+}".replace(".0e", "e") if exponent else plain_digits(value)
    return plain_digits(value)


def plain_digits(value: float) -> str:
    """The fewest digits that mean this number, without an exponent."""
    text = f"{Decimal(repr(value)):f}"
    return text.removesuffix(".0")
