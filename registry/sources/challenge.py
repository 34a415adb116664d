"""WWW-Authenticate: what a registry wants to see before it answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

MAX_CHALLENGE_CHARACTERS = 8192
_MAX_PARTS = 64

_SPACE = re.compile(r"[ \t,]*")
_WORD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TOKEN68 = re.compile(r"[ \t]+[0-9A-Za-z._~+/-]+=*(?=[ \t]*(?:,|$))")
"""The one bare value that some schemes carry instead of parameters."""
_VALUE = re.compile(r"[ \t]*=[ \t]*(?:\"((?:[^\"\\]|\\.)*)\"|([^\s,\"]+))")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One scheme a server offers, with its parameters; both in lower case."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)


def read_challenges(header: str) -> list[Challenge]:
    """The offers in a header, as far as it can be read; those after the first mistake are left out."""
    if len(header) > MAX_CHALLENGE_CHARACTERS:
        return []
    found: list[Challenge] = []
    position = _skip(header, 0)
    for _ in range(_MAX_PARTS):
        word = _WORD.match(header, position)
        if word is None:
            break
        value = _VALUE.match(header, word.end())
        if value is not None and found:
            quoted, bare = value.groups()
            text = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else bare
            parameters = found[-1].parameters
            found[-1] = Challenge(found[-1].scheme, {word[0].lower(): text, **parameters})
            position = _skip(header, value.end())
        elif value is not None:
            break
        else:
            found.append(Challenge(word[0].lower()))
            bare_value = _TOKEN68.match(header, word.end())
            position = _skip(header, bare_value.end() if bare_value else word.end())
    return found


def _skip(header: str, position: int) -> int:
    match = _SPACE.match(header, position)
    return match.end() if match else position
