"""REQUIRES: the least version of Puna that a model asks for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache, total_ordering
from importlib.metadata import version

from registry.errors import InvalidRequest, Unsupported

_NUMBER = r"(0|[1-9][0-9]{0,8})"
_IDENTIFIERS = r"[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*"
_VERSION = re.compile(rf"v?{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-({_IDENTIFIERS}))?(?:\+({_IDENTIFIERS}))?")
_MAX_CHARACTERS = 100


@total_ordering
@dataclass(frozen=True, slots=True, eq=False)
class Version:
    """A semantic version. Ordered as they are; what follows a `+` is kept and does not count."""

    numbers: tuple[int, int, int]
    prerelease: tuple[str, ...] = ()
    build: str = ""

    def __str__(self) -> str:
        text = ".".join(map(str, self.numbers))
        if self.prerelease:
            text += "-" + ".".join(self.prerelease)
        return f"{text}+{self.build}" if self.build else text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Version) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __lt__(self, other: Version) -> bool:
        return self._key < other._key

    @property
    def _key(self) -> tuple[tuple[int, int, int], bool, tuple[tuple[bool, int, str], ...]]:
        parts = (
            (False, int(part), "") if part.isascii() and part.isdigit() else (True, 0, part) for part in self.prerelease
        )
        return self.numbers, not self.prerelease, tuple(parts)


def parse_version(text: str) -> Version:
    """Raises InvalidRequest for what is no semantic version; a `v` in front is left out."""
    match = _VERSION.fullmatch(text.strip()) if len(text) <= _MAX_CHARACTERS else None
    if match is None:
        raise InvalidRequest("requires must be a valid semver (e.g. 0.14.0)")
    major, minor, patch, prerelease, build = match.groups()
    return Version(
        (int(major), int(minor), int(patch)), tuple(prerelease.split(".")) if prerelease else (), build or ""
    )


def check_requirement(text: str) -> None:
    """Raises Unsupported when this Puna is older than a model wants it; an empty text wants nothing."""
    if not text:
        return
    wanted, here = parse_version(text), this_version()
    if here < wanted:
        raise Unsupported(
            f"The model requires Puna {wanted} or later, and this is {here}; update Puna to use it.",
            requires=str(wanted),
            version=str(here),
        )


@lru_cache(maxsize=1)
def this_version() -> Version:
    """Of this Puna. What a development version has behind its three numbers does not count against it."""
    match = re.match(rf"{_NUMBER}\.{_NUMBER}(?:\.{_NUMBER})?", version("puna"))
    assert match is not None
    major, minor, patch = match.groups()
    return Version((int(major), int(minor), int(patch or 0)))
