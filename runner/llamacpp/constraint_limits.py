"""What a schema, expression or grammar may ask for before it is compiled.

The compiler bounds most of what it does. Here is what it does not bound, and what it would
overlook: keywords it reads in another way than they are meant.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

MAX_SOURCE_BYTES = 128 * 1024
MAX_DEPTH = 64
MAX_EXPANSION = 50_000
"""Characters of a regular expression with every counted repeat written out."""
MAX_MULTIPLE = 100_000
"""`multipleOf` becomes an automaton with a state for each remainder."""

_SCHEMAS_BY_NAME = frozenset({"properties", "patternProperties", "$defs", "definitions"})
_NOT_SCHEMAS = frozenset({"const", "enum", "default", "example", "examples", "required"})
_QUANTIFIER = re.compile(r"\{(\d*)(,?)(\d*)\}")
_UNWRITABLE = re.compile(r"(?<!\\)(?:\\\\)*\\u00[01]")
"""The code of a control character in JSON, where it has no letter of its own."""
_CODE_OR_CLASS = re.compile(r"\\[pPxu]\{[^}]*\}|\\.", re.DOTALL)
_LARK_TOKEN = re.compile(
    r"""(?P<text>"(?:\\.|[^"\\\n])*"i?)|(?P<comment>//[^\n]*|\#[^\n]*)|/(?P<regex>(?:\\.|[^/\\\n])+)/|%json\s*(?P<json>\{)""",
)


class Excessive(Exception):
    """Says in a sentence what is too much or cannot be honoured."""


def check_schema(source: str) -> None:
    """Raises Excessive for a JSON schema that must not be compiled."""
    check_size(source)
    try:
        schema = json.loads(source)
    except (ValueError, RecursionError):
        raise Excessive("It is no JSON.") from None
    _check_parsed(schema)


def check_regex(source: str) -> None:
    """Raises Excessive for an expression that must not be compiled."""
    check_size(source)
    if expansion(source) > MAX_EXPANSION:
        raise Excessive(f"Its counted repeats come to more than {MAX_EXPANSION} characters.")


def check_lark(source: str) -> None:
    """Raises Excessive for a Lark grammar that must not be compiled."""
    check_size(source)
    depth = position = 0
    while position < len(source):
        token = _LARK_TOKEN.match(source, position)
        if token is None:
            depth += (source[position] in "([{") - (source[position] in ")]}")
            if depth > MAX_DEPTH:
                raise Excessive(f"It is nested deeper than {MAX_DEPTH}.")
            position += 1
        elif token["json"]:
            position = _check_embedded(source, token.start("json"))
        else:
            if token["regex"] and expansion(token["regex"]) > MAX_EXPANSION:
                raise Excessive(f"Counted repeats come to more than {MAX_EXPANSION} characters.")
            position = token.end()


def json_parts(source: str) -> Iterator[object]:
    """The schemas in a Lark grammar. Raises ValueError and RecursionError for what is none."""
    position = 0
    while position < len(source):
        token = _LARK_TOKEN.match(source, position)
        if token is None:
            position += 1
        elif token["json"]:
            schema, position = json.JSONDecoder().raw_decode(source, token.start("json"))
            yield schema
        else:
            position = token.end()


def check_size(source: str) -> None:
    """Raises Excessive for a source that nobody should have to read."""
    if len(source.encode()) > MAX_SOURCE_BYTES:
        raise Excessive(f"It is larger than {MAX_SOURCE_BYTES >> 10} KiB.")


def expansion(pattern: str) -> int:
    """How many single-character matchers `pattern` has when its counted repeats are written out."""
    groups = [0]
    last = 0
    position = 0
    while position < len(pattern):
        sign = pattern[position]
        if sign == "\\":
            escape = _CODE_OR_CLASS.match(pattern, position)
            position, last = (escape.end() if escape else position + 1), 1
            groups[-1] += 1
            continue
        position += 1
        if sign == "(":
            groups.append(0)
        elif sign == ")" and len(groups) > 1:
            last = groups.pop()
            groups[-1] += last
        elif sign == "{" and (counted := _QUANTIFIER.match(pattern, position - 1)):
            position = counted.end()
            # Python reads no number this long, and no answer needs one.
            times = max((min(int(number[:9]), 10**9) for number in counted.group(1, 3) if number), default=1)
            groups[-1] += last * (max(times, 1) - 1)
            last *= max(times, 1)
        elif sign not in "|*+?^$":
            last = 1
            groups[-1] += 1
            if sign == "[":
                position = _class_end(pattern, position)
    return sum(groups)


def _class_end(pattern: str, position: int) -> int:
    """Where a character class that was just opened ends."""
    depth = 1
    while position < len(pattern) and depth:
        if pattern[position] == "\\":
            position += 1
        else:
            depth += (pattern[position] == "[") - (pattern[position] == "]")
        position += 1
    return position


def _check_embedded(source: str, start: int) -> int:
    try:
        schema, end = json.JSONDecoder().raw_decode(source, start)
    except (ValueError, RecursionError):
        raise Excessive("What follows %json is no JSON.") from None
    _check_parsed(schema)
    return end


def _check_parsed(schema: object) -> None:
    if depth_of(schema) > MAX_DEPTH:
        raise Excessive(f"It is nested deeper than {MAX_DEPTH}.")
    for node in _subschemas(schema):
        for keyword, check in _KEYWORD_CHECKS.items():
            if keyword in node:
                check(keyword, node)


def depth_of(value: object) -> int:
    """How deep arrays and objects stand in one another."""
    deepest, open_ends = 0, [(value, 1)]
    while open_ends:
        inner, depth = open_ends.pop()
        children = inner.values() if isinstance(inner, dict) else inner if isinstance(inner, list) else ()
        open_ends += [(child, depth + 1) for child in children]
        deepest = max(deepest, depth if isinstance(inner, dict | list) else 0)
    return deepest


def _subschemas(schema: object) -> Iterator[Mapping[str, Any]]:
    open_ends = [schema]
    while open_ends:
        node = open_ends.pop()
        if isinstance(node, list):
            open_ends += node
        elif isinstance(node, dict):
            yield node
            for keyword, value in node.items():
                if keyword in _SCHEMAS_BY_NAME and isinstance(value, dict):
                    open_ends += value.values()
                elif keyword not in _NOT_SCHEMAS:
                    open_ends.append(value)


def _check_pattern(keyword: str, node: Mapping[str, Any]) -> None:
    patterns = node[keyword] if isinstance(node[keyword], dict) else [node[keyword]]
    for pattern in patterns:
        if isinstance(pattern, str) and expansion(pattern) > MAX_EXPANSION:
            raise Excessive(f"{keyword}: counted repeats come to more than {MAX_EXPANSION} characters.")


def _check_multiple(keyword: str, node: Mapping[str, Any]) -> None:
    value = node[keyword]
    if isinstance(value, int | float) and not isinstance(value, bool):
        digits = int("".join(map(str, Decimal(str(value)).normalize().as_tuple().digits)))
        if digits > MAX_MULTIPLE:
            raise Excessive(f"{keyword}: has more digits than {MAX_MULTIPLE}.")


def _check_bound(keyword: str, node: Mapping[str, Any]) -> None:
    # The boolean form is that of an old draft; the compiler passes over it.
    if isinstance(node[keyword], bool):
        raise Excessive(f"{keyword} must be a number.")


def _check_fewest(keyword: str, node: Mapping[str, Any]) -> None:
    """A name that is said twice counts once, and free names can be said twice."""
    fewest, required = node[keyword], node.get("required")
    certain = len(required) if isinstance(required, list) else 0
    is_closed = node.get("additionalProperties") is False and not node.get("patternProperties")
    if isinstance(fewest, int) and fewest > certain + 1 and not is_closed:
        raise Excessive(f"{keyword} cannot be kept where names are free; name the properties and require them.")


def _check_letters(keyword: str, node: Mapping[str, Any]) -> None:
    """Answers write no codes for characters, since a name in disguise would pass for another."""
    value = node[keyword]
    names = list(value) if keyword == "properties" and isinstance(value, dict) else value
    if _UNWRITABLE.search(json.dumps(names)):
        raise Excessive(f"{keyword} has control characters, which answers do not write.")


_KEYWORD_CHECKS = {
    "const": _check_letters,
    "enum": _check_letters,
    "required": _check_letters,
    "properties": _check_letters,
    "pattern": _check_pattern,
    "patternProperties": _check_pattern,
    "multipleOf": _check_multiple,
    "exclusiveMinimum": _check_bound,
    "exclusiveMaximum": _check_bound,
    "minProperties": _check_fewest,
}
