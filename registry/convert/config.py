"""A checkpoint's config.json, or another such file, read with its types checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from registry.errors import ModelInvalid, Unsupported

_LARGEST = 1 << 31


class Config:
    """Values by name; absent and null are the same. Everything raises ModelInvalid for another type."""

    def __init__(self, values: Mapping[str, Any], file: str = "config.json") -> None:
        self._values = values
        self._file = file

    def has(self, name: str) -> bool:
        return self._values.get(name) is not None

    def names(self) -> list[str]:
        return list(self._values)

    def count(self, name: str, default: int | None = None) -> int:
        """A number of something, at least 1."""
        value = self._values.get(name)
        if value is None:
            value = default
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value < _LARGEST:
            raise ModelInvalid(f"{self._file} says {value!a} for {name}, which is no count.")
        return value

    def identifier(self, name: str) -> int | None:
        """A token's id; the first of a list."""
        value = self._values.get(name)
        if isinstance(value, list):
            value = value[0] if value else None
        return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None

    def number(self, name: str, default: float | None = None) -> float:
        value = self._values.get(name)
        if value is None:
            value = default
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ModelInvalid(f"{self._file} says {value!a} for {name}, which is no number.")
        return float(value)

    def text(self, name: str, default: str = "") -> str:
        value = self._values.get(name)
        return value if isinstance(value, str) else default

    def texts(self, name: str) -> list[str]:
        value = self._values.get(name)
        return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []

    def is_true(self, name: str, default: bool = False) -> bool:
        value = self._values.get(name, default)
        return value if isinstance(value, bool) else default

    def table(self, name: str) -> Config:
        value = self._values.get(name)
        return Config(value if isinstance(value, dict) else {}, self._file)

    def require(self, name: str, *allowed: object) -> None:
        """Raises Unsupported when a value is said and is none of those the engine computes."""
        value = self._values.get(name)
        if value is not None and value not in allowed:
            raise Unsupported(f"{self._file} says {str(value)[:60]!a} for {name}; converted are {_listed(allowed)}.")


def _listed(values: tuple[object, ...]) -> str:
    return ", ".join(str(value) for value in values)
