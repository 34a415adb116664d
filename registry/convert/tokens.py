"""The tokens of a vocabulary, in the order of their ids."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, field

from registry.errors import ModelInvalid


class TokenKind(enum.IntEnum):
    """The engine's kinds of tokens; SentencePiece has the same numbers."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(slots=True)
class Tokens:
    """Lists as long as each other, while a vocabulary is put together. An empty text is a gap, which is never used."""

    model: str
    """The engine's name of the kind: `gpt2`, `llama` or `bert`."""
    texts: list[str]
    kinds: list[TokenKind]
    scores: list[float] = field(default_factory=list)
    """Empty when the kind has none."""
    merges: list[str] = field(default_factory=list)
    pre: str | None = None
    """The engine's name of how text is split before it is tokenized."""
    flags: dict[str, bool] = field(default_factory=dict)
    originals: list[str] = field(default_factory=list)
    """As the checkpoint spells them, where that differs from `texts`."""

    def __post_init__(self) -> None:
        if not self.originals:
            self.originals = list(self.texts)
        for number, text in enumerate(self.texts):
            if not text:
                self.texts[number], self.kinds[number] = _filler(number), TokenKind.UNUSED

    def add(self, added: Iterable[tuple[int, str, TokenKind]]) -> None:
        """Put tokens at their ids: known ones change their kind, later ones extend the list.

        Raises ModelInvalid when an id is another token's.
        """
        for number, text, kind in added:
            if number < len(self.texts):
                if self.originals[number] not in (text, "") and self.kinds[number] is not TokenKind.UNUSED:
                    raise ModelInvalid(f"The added token {text[:40]!a} has the id of {self.originals[number][:40]!a}.")
                self.texts[number] = self.originals[number] = text
                self.kinds[number] = kind
            else:
                self.pad(number)
                self._append(text, kind)

    def pad(self, size: int) -> None:
        """Fill up to `size` tokens with ones that are never used; models are often padded to a round number."""
        while len(self.texts) < size:
            self._append(_filler(len(self.texts)), TokenKind.UNUSED)

    def _append(self, text: str, kind: TokenKind) -> None:
        self.texts.append(text)
        self.originals.append(text)
        self.kinds.append(kind)
        if self.scores:
            self.scores.append(0.0 if kind is TokenKind.USER_DEFINED else -1000.0)


def _filler(number: int) -> str:
    return f"[PAD{number}]"


def in_order(vocabulary: object) -> list[str]:
    """The tokens of a JSON vocabulary by id; gaps are empty. Raises ModelInvalid."""
    if not isinstance(vocabulary, dict) or not vocabulary:
        raise ModelInvalid("tokenizer.json has no vocabulary.")
    size = len(vocabulary) * 2 + 4096
    found: dict[int, str] = {}
    for text, number in vocabulary.items():
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < size or number in found:
            raise ModelInvalid(f"tokenizer.json gives the token {text[:40]!a} no id of its own.")
        found[number] = text
    return [found.get(number, "") for number in range(max(found) + 1)]


def merge_pairs(merges: object) -> list[tuple[str, str]]:
    """The merges of a JSON tokenizer in order, whichever way they are written. Raises ModelInvalid."""
    if not isinstance(merges, list):
        raise ModelInvalid("tokenizer.json has no merges.")
    pairs = []
    for merge in merges:
        parts = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(part, str) for part in parts):
            raise ModelInvalid(f"tokenizer.json has the merge {str(merge)[:40]!a}, which is not of two tokens.")
        pairs.append((parts[0], parts[1]))
    return pairs
