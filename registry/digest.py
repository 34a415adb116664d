"""Digests: the names of blobs, in a form that cannot hold a path."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from registry.errors import InvalidRequest

_FORM = re.compile(r"sha256[:-]([0-9a-fA-F]{64})")


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A SHA-256 digest; `hex` is always 64 lower-case hexadecimal characters."""

    hex: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9a-f]{64}", self.hex):
            raise InvalidRequest("invalid digest format")

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read `sha256:…` or `sha256-…`. Raises InvalidRequest for anything else."""
        match = _FORM.fullmatch(text)
        if match is None:
            raise InvalidRequest("invalid digest format")
        return cls(match.group(1).lower())

    @classmethod
    def of(cls, content: bytes) -> Digest:
        return cls(hashlib.sha256(content).hexdigest())

    @property
    def file_name(self) -> str:
        return f"sha256-{self.hex}"

    @property
    def short(self) -> str:
        """The twelve characters people are shown."""
        return self.hex[:12]

    def __str__(self) -> str:
        return f"sha256:{self.hex}"
