"""LoRA adapters, as a request wants them."""

from __future__ import annotations

import msgspec


class AdapterUse(msgspec.Struct, frozen=True):
    """An adapter, and how much of it is added to the weights."""

    path: str
    digest: str
    """Of its file: what names it."""
    scale: float = 1.0
    size: int = 0
    """Bytes that it takes in memory: as many as in its file."""


AdapterSet = tuple[AdapterUse, ...]
"""What is added to the weights together, in order; nothing of scale 0 is in it."""


def scope_with(scope: str, adapters: AdapterSet) -> str:
    """A cache scope that only requests with the same adapters share: others compute other things of the same tokens."""
    return scope + "".join(f"+{use.digest}*{use.scale!r}" for use in adapters)
