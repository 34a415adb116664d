"""Comparing as Go does it: numbers with numbers of their kind, texts with texts."""

from __future__ import annotations

from runner.chat.go_template.errors import Fault
from runner.chat.go_template.values import GoList, GoMap, Record, Value, type_name

_BASIC = (bool, int, float, str)


def equal(left: Value, right: Value) -> bool:
    """Raises Fault for kinds that do not compare; nothing equals only nothing."""
    kinds = _kind(left), _kind(right)
    if kinds[0] != kinds[1]:
        if left is None or right is None:
            return False
        raise Fault("incompatible types for comparison")
    if kinds[0] is not None:
        return bool(left == right)
    if left is None or right is None:
        return _is_nil(left) == _is_nil(right)
    if isinstance(left, Record) and isinstance(right, Record) and left.type is right.type:
        return all(_same(one, other) for one, other in zip(left.values, right.values, strict=True))
    raise Fault(f"non-comparable type {type_name(right)}")


def less(left: Value, right: Value) -> bool:
    """Raises Fault for what has no order."""
    kinds = _kind(left), _kind(right)
    if None in kinds or bool in kinds:
        raise Fault("invalid type for comparison")
    if kinds[0] != kinds[1]:
        raise Fault("incompatible types for comparison")
    return bool(left < right)


def _same(left: Value, right: Value) -> bool:
    if _kind(left) is None:
        raise Fault(f"non-comparable type {type_name(left)}")
    return bool(left == right)


def _kind(value: Value) -> type | None:
    return type(value) if type(value) in _BASIC else None


def _is_nil(value: Value) -> bool:
    return value is None or (isinstance(value, GoList | GoMap) and value.is_nil)
