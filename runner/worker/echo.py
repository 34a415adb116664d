"""A prompt that stands at the beginning of its own answer, with how likely the model found it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from runner.chat.types import ScoredToken, TextDelta
from runner.engine import PromptScoring, TokenScore


class TokenReader(Protocol):
    def token_bytes(self, token: int) -> bytes: ...

    def written(self, token: int) -> bytes: ...


class Echo:
    """One prompt to be told back. `alternatives` is None when no log-probabilities are wanted."""

    def __init__(self, text: str, tokens: Sequence[int], alternatives: int | None, vocabulary: TokenReader) -> None:
        self._text = text
        self._tokens = tuple(tokens)
        self._alternatives = alternatives
        self._vocabulary = vocabulary
        self._scores: dict[int, TokenScore] = {}
        """By position; a prompt that is computed anew brings the same again."""

    def scoring(self, start: int, count: int) -> PromptScoring | None:
        """What to ask when the prompt's tokens from `start` on are computed."""
        targets = self._tokens[start + 1 : start + count + 1]
        if self._alternatives is None or not targets:
            return None
        return PromptScoring(targets, self._alternatives, self._scores)

    def delta(self) -> TextDelta:
        """The prompt as the answer's first text; call when all of it is computed."""
        if self._alternatives is None:
            return TextDelta(self._text)
        return TextDelta(self._text, tuple(self._token(place) for place in range(len(self._tokens))))

    def _token(self, place: int) -> ScoredToken:
        data = self._data(place)
        score = self._scores.get(place)
        if score is None:
            return ScoredToken(data, None)
        alternatives = tuple((self._vocabulary.written(token), logprob) for token, logprob in score.alternatives)
        return ScoredToken(data, score.logprob, alternatives)

    def _data(self, place: int) -> bytes:
        token = self._tokens[place]
        written = self._vocabulary.written(token)
        # The token that begins every prompt is not in its text, unless the client wrote it.
        return written if place or self._text.encode().startswith(written) else self._vocabulary.token_bytes(token)
