"""Log-probabilities of an answer's tokens that another worker took and had not told of."""

from __future__ import annotations

from collections.abc import Sequence

from runner.engine import PromptScoring, TokenScore


class Rescoring:
    """Has the last `count` of these tokens scored while they are computed."""

    def __init__(self, tokens: Sequence[int], count: int, alternatives: int) -> None:
        self._tokens = tuple(tokens)
        self._count = count
        self._alternatives = alternatives
        self._scores: dict[int, TokenScore] = {}
        """By position."""

    def scoring(self, start: int, count: int) -> PromptScoring | None:
        """What to ask when the tokens from `start` on are computed."""
        if start + count + 1 <= len(self._tokens) - self._count:
            return None  # and what follows may be an image, which has no likelihood
        targets = self._tokens[start + 1 : start + count + 1]
        return PromptScoring(targets, self._alternatives, self._scores) if targets else None

    @property
    def scores(self) -> list[TokenScore]:
        """Of the last tokens, in order; call when all are computed."""
        length = len(self._tokens)
        return [self._scores[place] for place in range(length - self._count, length)]
