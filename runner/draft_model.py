"""A second, smaller model that guesses what the first will say: its files, and what the worker asks of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec


class DraftFiles(msgspec.Struct, frozen=True):
    """Which draft model is loaded beside a model."""

    name: str
    """As people are told of it."""
    digest: str
    """Of its weights: what names it."""
    paths: tuple[str, ...]
    """Its files, shards in order."""


@dataclass(frozen=True, slots=True)
class DraftChunk:
    """Consecutive tokens of one sequence in a step of the draft model."""

    sequence_id: int
    start: int
    """Position of the first token."""
    tokens: Sequence[int]
    is_asked: bool = True
    """Whether what follows the last of these is to be guessed."""


@dataclass(frozen=True, slots=True)
class Guess:
    """The likeliest next token, and how sure the draft model is of it."""

    token: int
    chance: float
    """From 0 to 1, in the draft model's opinion."""


class DraftModel(Protocol):
    """A loaded draft model with sequences and cells of its own. Used on the engine thread only; all calls block."""

    native_ns: int
    """Nanoseconds spent inside the inference library since loading."""

    @property
    def vocabulary(self) -> int:
        """Tokens from this number on it cannot read."""
        ...

    @property
    def room(self) -> int:
        """Cells of all its sequences together; 0 when there was no memory for them."""
        ...

    @property
    def longest(self) -> int:
        """Most tokens of one sequence."""
        ...

    @property
    def max_rows(self) -> int:
        """Most tokens of one step."""
        ...

    def step(self, chunks: Sequence[DraftChunk]) -> list[Guess]:
        """Compute the chunks in one batch; a guess for each that asks for one, in order.

        Raises `OutOfCells` (nothing computed) or `EngineFault` of `runner.engine`.
        """
        ...

    def remove(self, sequence_id: int) -> None:
        """Forget all of a sequence."""
        ...

    def cut(self, sequence_id: int, length: int) -> None:
        """Forget the positions from `length` on."""
        ...

    def copy(self, source: int, target: int, length: int) -> None:
        """Let `target`, which holds nothing, share the first `length` cells of `source`."""
        ...

    def resize(self, window: int) -> None:
        """Forget all sequences and have room for `window` tokens; `room` tells what came of it."""
        ...
