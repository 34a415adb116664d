"""A tool's schema taken apart: the schemas of its arguments, each of which can stand alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]

ALL_TYPES = ("null", "boolean", "integer", "number", "array", "object", "string")
_DEFINITIONS = ("$defs", "definitions")
_CHOICES = ("anyOf", "oneOf")


def property_schema(schema: Schema, name: str) -> Schema | None:
    """The schema of one argument, if the tool's schema has one."""
    properties = schema.get("properties")
    found = properties.get(name) if isinstance(properties, Mapping) else None
    return part_of(schema, found) if isinstance(found, Mapping) else None


def part_of(whole: Schema, part: object) -> Schema:
    """A schema that stands inside another, with the definitions it refers to; one that allows all where it is none."""
    if not isinstance(part, Mapping):
        return {}
    needed: dict[str, dict[str, object]] = {}
    pending: list[object] = [part]
    while pending:
        for reference in _references(pending.pop()):
            group, name = _place(reference)
            known = whole.get(group)
            if isinstance(known, Mapping) and name in known and name not in needed.get(group, {}):
                needed.setdefault(group, {})[name] = known[name]
                pending.append(known[name])
    return {**part, **needed}


def variants(schema: Schema) -> list[Schema]:
    """The schemas of which a value has to satisfy one: references and choices are followed, types told apart."""
    return list(_variants(schema, set())) or [{}]


def types_of(schema: Schema | None) -> frozenset[str]:
    """The JSON types that a value of this schema may have; all when it does not say."""
    if schema is None:
        return frozenset(ALL_TYPES)
    return frozenset().union(*map(_own_types, variants(schema)))


def choices_of(schema: Schema) -> list[object] | None:
    """The values that a schema tells one by one."""
    if "const" in schema:
        return [schema["const"]]
    found = schema.get("enum")
    return found if isinstance(found, list) and found else None


def type_of(value: object) -> str:
    """The JSON type of a value."""
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


def _variants(schema: Schema, followed: set[str]) -> Iterator[Schema]:
    reference = schema.get("$ref")
    if isinstance(reference, str):
        if reference in followed:
            return  # what it stands for is among the variants already
        followed.add(reference)
        group, name = _place(reference)
        known = schema.get(group)
        target = known.get(name) if isinstance(known, Mapping) else None
        yield from _variants(part_of(schema, target), followed)
        return
    for keyword in (*_CHOICES, "allOf"):
        options = schema.get(keyword)
        if isinstance(options, list) and (len(options) == 1 or (options and keyword in _CHOICES)):
            rest = {key: value for key, value in schema.items() if key != keyword}
            for option in options:
                yield from _variants({**rest, **option} if isinstance(option, Mapping) else rest, followed)
            return
    kinds = schema.get("type")
    if isinstance(kinds, list) and choices_of(schema) is None:
        yield from ({**schema, "type": kind} for kind in kinds if isinstance(kind, str))
    else:
        yield schema


def _own_types(schema: Schema) -> frozenset[str]:
    kind = schema.get("type")
    if isinstance(kind, str):
        return frozenset((kind,))
    if isinstance(kind, list):
        return frozenset(one for one in kind if isinstance(one, str))
    choices = choices_of(schema)
    return frozenset(ALL_TYPES) if choices is None else frozenset(map(type_of, choices))


def _references(value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, one in value.items():
            if key == "$ref" and isinstance(one, str):
                yield one
            else:
                yield from _references(one)
    elif isinstance(value, list):
        for one in value:
            yield from _references(one)


def _place(reference: str) -> tuple[str, str]:
    """The keyword that holds a definition, and the definition's name; empty ones for other references."""
    for group in _DEFINITIONS:
        if reference.startswith(f"#/{group}/"):
            return group, reference.removeprefix(f"#/{group}/").replace("~1", "/").replace("~0", "~")
    return "", ""
