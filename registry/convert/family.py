"""What the converter asks of a family of models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import gguf

from registry.convert.checkpoint import Array
from registry.convert.config import Config
from registry.errors import Unsupported

Change = Callable[[Array], Array]


@dataclass(frozen=True, slots=True)
class Target:
    """What becomes of a checkpoint's tensor."""

    name: str
    """In the GGUF file."""
    reorder: Change | None = None
    """Moves rows; sees the data in its stored type."""
    change: Change | None = None
    """Computes; sees and gives F32."""
    is_full: bool = False
    """The engine adds it up with others and takes it in F32 alone."""


@dataclass(frozen=True, slots=True)
class Family:
    """Models that share a graph."""

    architecture: str
    """In the GGUF file."""
    classes: tuple[str, ...]
    """What `architectures` says in config.json."""
    describe: Callable[[Config, gguf.GGUFWriter], None]
    """Writes the hyperparameters. Raises Unsupported for what the engine would compute otherwise."""
    place: Callable[[str, Config], Target | None]
    """Where a tensor goes; None leaves it out. Raises Unsupported for one that is not known."""
    additions: Callable[[Config], Mapping[str, Array]] = lambda _: {}
    """Tensors that the checkpoint has no data for."""
    is_pooled: bool = False
    """Whether it makes one vector of many, in a way that the checkpoint tells."""


def unknown_tensor(name: str) -> Unsupported:
    return Unsupported(f"The tensor {name[:80]!a} has no place in models of this family.")
