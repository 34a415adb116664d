"""config.toml: its tables and values, and the lines on which they stand."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runner.setting_kinds import Kind


class SettingsError(Exception):
    """A setting that cannot be used. `str()` says where it stands, what is wrong and what is allowed."""

    def __init__(
        self, message: str, *, file: Path | None = None, line: int | None = None, key: str | None = None
    ) -> None:
        place = "" if file is None else f"{file}: " if line is None else f"{file}:{line}: "
        super().__init__(place + message)
        self.message = message
        self.file = file
        self.line = line
        self.key = key


class ConfigFile:
    """The parsed file, and where in it things stand."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._text = ""
        self._document: dict[str, Any] = {}
        try:
            self._text = path.read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            return
        except UnicodeDecodeError:
            raise SettingsError("the file is not written in UTF-8", file=path) from None
        except OSError as error:
            raise SettingsError(f"the file cannot be read ({error.strerror})", file=path) from None
        import tomllib

        try:
            self._document = tomllib.loads(self._text)
        except tomllib.TOMLDecodeError as error:
            reason, _, place = str(error).partition(" (at ")
            line = re.match(r"line ([0-9]+)", place)
            at_end = self._text.count("\n") + 1
            raise SettingsError(
                f"this is not TOML: {reason[:1].lower()}{reason[1:]}",
                file=path,
                line=int(line[1]) if line else at_end,
            ) from None

    def table(self, path: tuple[str, ...]) -> dict[str, Any]:
        """The table at `path`, empty when it is absent."""
        value: Any = self._document
        for name in path:
            value = value.get(name, {})
        if not isinstance(value, dict):
            raise self.error(f"{_written_path(path)} is a table: its options stand below a line {_header(path)}", path)
        return value

    def refuse_unknown(self, path: tuple[str, ...], known: set[str]) -> None:
        """Raises SettingsError for a key of the table at `path` that is not in `known`."""
        for key in self.table(path):
            if key not in known:
                allowed = ", ".join(sorted(known) if path else map(_bracketed, sorted(known)))
                what = f"key {key!r} in {_header(path)}" if path else f"table or key {key!r}"
                raise self.error(f"unknown {what}. Allowed: {allowed}", (*path, key))

    def read(self, kind: Kind, path: tuple[str, ...]) -> Any:
        """The value at `path`, which must be there, in its own type; raises SettingsError."""
        value = self.table(path[:-1])[path[-1]]
        return read_value(kind, value, _written_path(path), file=self._path, line=self._line(path))

    def error(self, message: str, path: tuple[str, ...]) -> SettingsError:
        """What is wrong with the value at `path`, and on which line it stands."""
        return SettingsError(message, file=self._path, line=self._line(path), key=_written_path(path))

    def _line(self, path: tuple[str, ...]) -> int | None:
        """The line that sets `path`, found by reading each line alone; the parser tells no places."""
        import tomllib

        inside: tuple[str, ...] = ()
        closest: tuple[int, int] | None = None
        for number, line in enumerate(self._text.splitlines(), 1):
            is_header = line.lstrip().startswith("[")
            try:
                parsed = tomllib.loads(line if is_header else line.partition("=")[0] + " = 0")
            except tomllib.TOMLDecodeError:
                continue
            here = _first_path(parsed)
            if is_header:
                inside = here
            else:
                here = inside + here
            shared = len(here) if here == path[: len(here)] else len(path) if here[: len(path)] == path else 0
            if shared and (closest is None or shared > closest[0]):
                closest = (shared, number)
        return None if closest is None else closest[1]


def read_value(kind: Kind, value: object, key: str, *, file: Path | None = None, line: int | None = None) -> Any:
    """A value in its own type; raises SettingsError, which names `key` and what is allowed."""
    try:
        return kind.read(value)
    except ValueError as error:
        shown = repr(value) if len(repr(value)) <= 80 and not kind.is_secret else "the value"
        raise SettingsError(
            f"{key} cannot be {shown}: {error}. Allowed: {kind.allowed}", file=file, line=line, key=key
        ) from None


def _first_path(document: Mapping[str, Any]) -> tuple[str, ...]:
    path = []
    value: Any = document
    while isinstance(value, dict | list) and value:
        if isinstance(value, list):
            value = value[0]
            continue
        key = next(iter(value))
        path.append(key)
        value = value[key]
    return tuple(path)


def _written_path(path: tuple[str, ...]) -> str:
    return ".".join(name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else f'"{name}"' for name in path)


def _header(path: tuple[str, ...]) -> str:
    return f"[{_written_path(path)}]"


def _bracketed(name: str) -> str:
    inside = {"models": "NAME", "registries": "HOST[:PORT]"}.get(name)
    return f'[{name}."{inside}"]' if inside else f"[{name}]"
