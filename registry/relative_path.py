"""Relative paths from outside, in a form that stays inside its folder on every system."""

from __future__ import annotations

import re
from dataclasses import dataclass

from registry.errors import InvalidRequest

MAX_PARTS = 16
MAX_PART_BYTES = 200
"""File systems hold 255 bytes in a name; some is left for endings that are added."""

_DEVICES = frozenset(
    ["con", "prn", "aux", "nul", "conin$", "conout$"]
    + [f"{port}{number}" for port in ("com", "lpt") for number in "0123456789¹²³"]
)
"""Windows opens a device for a file of such a name, with any ending."""
_IMPOSSIBLE = re.compile(r'[\x00-\x1f\x7f<>:"|?*\\\ud800-\udfff]')
"""What Windows refuses in names, or reads as a drive, a stream or a folder; and what is no text."""


@dataclass(frozen=True, slots=True)
class RelativePath:
    """A path below some folder; every part is a possible file name on every system, and none leads out."""

    parts: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> RelativePath:
        """Read a path with `/` between its parts. Raises InvalidRequest, with what is wrong."""
        parts = text.split("/")
        if len(parts) > MAX_PARTS:
            raise InvalidRequest(f"The path {_shown(text)} has more than {MAX_PARTS} parts.")
        for part in parts:
            complaint = why_impossible(part)
            if complaint is not None:
                raise InvalidRequest(f"The path {_shown(text)} cannot be used: {complaint}.")
        return cls(tuple(parts))

    @property
    def folded(self) -> str:
        """Equal for paths that mean one file where case does not count."""
        return "/".join(self.parts).casefold()

    def __str__(self) -> str:
        return "/".join(self.parts)


def why_impossible(part: str) -> str | None:
    """What keeps a text from being a file's name on every system, in words; None when nothing does."""
    if part in ("", ".", ".."):
        return "file path must be relative, without empty parts and `..`"
    if len(part.encode("utf-8", "replace")) > MAX_PART_BYTES:
        return f"a part has more than {MAX_PART_BYTES} bytes"
    if found := _IMPOSSIBLE.search(part):
        return f"it has the character {found.group()!a}"
    if part[-1] in ". ":
        return "a part ends with a dot or a blank"
    if is_device(part):
        return "a part is the name of a device on Windows"
    return None


def is_device(part: str) -> bool:
    """Whether Windows would open a device by that name."""
    return part.split(".")[0].rstrip(" ").lower() in _DEVICES


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 100 else f"{text[:100]}…")
