"""The values that templates work on, as Go sees them.

Go's texts, booleans, numbers and nil are Python's `str`, `bool`, `int`, `float` and `None`; a slice
is a `list` and a map with texts as keys a `dict`. What has more to it in Go has a class here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runner.chat.go_template.errors import Fault

Value = Any


class GoList(list[Value]):
    """A slice that was never made (which is no empty one to JSON), or one that shows itself as JSON."""

    def __init__(self, items: Sequence[Value] = (), *, is_nil: bool = False, is_shown_as_json: bool = False) -> None:
        super().__init__(items)
        self.is_nil = is_nil
        self.is_shown_as_json = is_shown_as_json


class GoMap(dict[str, Value]):
    """A map that shows itself as JSON. `zero` is what it gives for a key it lacks."""

    def __init__(
        self, items: Mapping[str, Value], zero: Value = None, *, is_nil: bool = False, is_ordered: bool = False
    ) -> None:
        super().__init__(items)
        self.zero = zero
        self.is_nil = is_nil
        self.is_ordered = is_ordered
        """JSON has its entries in the order in which they came."""


class TypeNames(list[str]):
    """The names of JSON types: one shows itself as a text alone, to JSON too."""


@dataclass(frozen=True, slots=True)
class RecordField:
    """A field of a struct: its name, and what it is called in JSON."""

    name: str
    json_name: str
    omits_empty: bool = False


@dataclass(frozen=True, slots=True)
class RecordType:
    """A struct's type."""

    name: str
    fields: tuple[RecordField, ...]
    is_shown_as_json: bool = False
    methods: Mapping[str, Callable[[Record], Value]] | None = None


class Record:
    """A struct."""

    __slots__ = ("type", "values")

    def __init__(self, type_: RecordType, **values: Value) -> None:
        self.type = type_
        self.values = tuple(values[field.name] for field in type_.fields)

    def get(self, name: str) -> Value:
        """A field. Raises KeyError."""
        for field, value in zip(self.type.fields, self.values, strict=True):
            if field.name == name:
                return value
        raise KeyError(name)


def is_true(value: Value) -> bool:
    """Go's truth: zero, nothing and what is empty are false; a struct is always true."""
    return isinstance(value, Record) or bool(value)


def type_name(value: Value) -> str:
    """As Go calls it."""
    match value:
        case None:
            return "<nil>"
        case bool():
            return "bool"
        case int():
            return "int"
        case float():
            return "float64"
        case str():
            return "string"
        case Record():
            return value.type.name
        case TypeNames():
            return "PropertyType"
        case list():
            return "[]interface {}"
        case _:
            return "map[string]interface {}"


def field_of(receiver: Value, name: str) -> Value:
    """`receiver.name`: an entry of a map, a field or method of a struct; what a map lacks is nil. Raises Fault."""
    if isinstance(receiver, Record):
        if receiver.type.methods and name in receiver.type.methods:
            return receiver.type.methods[name](receiver)
        try:
            return receiver.get(name)
        except KeyError:
            pass
    elif isinstance(receiver, dict):
        if name in receiver:
            return receiver[name]
        return receiver.zero if isinstance(receiver, GoMap) else None
    raise Fault(f"can't evaluate field {name[:100]} in type {type_name(receiver)}")


def sorted_items(value: Mapping[str, Value]) -> list[tuple[str, Value]]:
    """A map's entries in the order in which Go walks them."""
    return sorted(value.items())


def from_json(value: object) -> Value:
    """A value that was read from JSON: to Go all its numbers are `float64`. Raises Fault for too large ones."""
    match value:
        case None | bool() | str() | float():
            return value
        case int():
            try:
                return float(value)
            except OverflowError:
                raise Fault("a number is too large") from None
        case dict():
            return {str(key): from_json(one) for key, one in value.items()}
        case list() | tuple():
            return [from_json(one) for one in value]
        case _:
            raise Fault(f"a {type(value).__name__} is no JSON value")
