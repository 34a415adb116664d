"""What becomes of one request's sampled tokens: text, and the end of the answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from runner.chat.types import ChatEvent, ChatRequest, Failed, FinishReason, ScoredToken, TextDelta, ThinkingDelta
from runner.engine import NO_NUMBERS, Sampler, TokenScore
from runner.worker.detokenizer import TextStream
from runner.worker.echo import Echo
from runner.worker.output import OutputPlan, OutputReader

SHIFTING_BUDGET_IN_WINDOWS = 10
"""An answer that may shift its window and was given no limit ends after so many windows."""

_NO_MARKERS: frozenset[int] = frozenset()


class TokenReader(Protocol):
    """What an answer needs to know of a vocabulary."""

    def token_bytes(self, token: int) -> bytes: ...

    def written(self, token: int) -> bytes: ...

    def ends_generation(self, token: int) -> bool: ...


class Answer:
    """One answer as it grows. Owned by the loop.

    `accept` takes each sampled token once; when `ended` or `failed` is set afterwards there must
    be no more, and `finish` gives the text that was held back.
    """

    __slots__ = (
        "_markers",
        "_reader",
        "_scored",
        "_text",
        "_undecided",
        "_wants_scores",
        "echo",
        "ended",
        "failed",
        "generated",
        "max_generated",
        "thinking_tokens",
    )

    def __init__(
        self, request: ChatRequest, window: int, plan: OutputPlan | None = None, echo: Echo | None = None
    ) -> None:
        self.echo = echo
        self._text = TextStream(request.stop)
        self._reader = OutputReader(plan) if plan is not None else None
        self._markers = plan.marker_tokens if plan is not None else _NO_MARKERS
        self._wants_scores = request.logprobs is not None
        self._scored = _ScoredTokens()
        self.generated = 0
        """Tokens sampled so far."""
        self.thinking_tokens = 0
        """Those of them that were thoughts."""
        self._undecided = 0
        self.max_generated = _most_tokens(request, window)
        self.failed: Failed | None = None
        self.ended: FinishReason | None = None
        if self.max_generated == 0 and not request.scores_prompt:
            self.ended = FinishReason.LENGTH

    @property
    def stop_string(self) -> str | None:
        """The stop string that ended the answer, if one did."""
        return self._text.stopped_by

    def accept(self, token: int, vocabulary: TokenReader, sampler: Sampler) -> Sequence[ChatEvent]:
        """One more token, just sampled; what is certain by now, if there is anything."""
        opening = self._opening()
        if self.max_generated == 0:
            # It was only sampled to have the prompt computed.
            self.ended = FinishReason.LENGTH
            return opening
        if sampler.failure is not None:
            self.failed = _failed(sampler.failure)
            return ()
        self.generated += 1
        if vocabulary.ends_generation(token):
            self._end(FinishReason.STOP)
            return opening
        text = self._text.push(vocabulary.written(token) if token in self._markers else vocabulary.token_bytes(token))
        delta = TextDelta(text) if text else None
        if self._wants_scores:
            if sampler.score is not None:
                self._scored.add(sampler.score, vocabulary)
            delta = self._scored.delta(text)
        events = self._read(delta)
        if self._text.stopped_by is not None or sampler.is_complete:
            self._end(FinishReason.STOP)
        elif self.generated == self.max_generated:
            self._end(FinishReason.LENGTH)
        return (*opening, *events) if opening else events

    def finish(self) -> Sequence[ChatEvent]:
        """What was held back, now that nothing follows; `ended` may then tell of calls."""
        text = self._text.finish()
        delta = TextDelta(text) if text else None
        if self._wants_scores:
            delta = self._scored.delta(text, is_last=True)
        events = self._read(delta)
        if self._reader is not None:
            events = (*events, *self._reader.finish())
            if self.ended is not None:
                self._end(self.ended)
        return (*self._opening(), *events)

    @property
    def untold_scores(self) -> int:
        """Tokens whose log-probabilities are to be told with text that is still held back."""
        return self._scored.waiting

    def rescore(self, scores: Sequence[TokenScore], vocabulary: TokenReader) -> None:
        """Take other scores for the last tokens, which are still untold."""
        self._scored.rescore(scores, vocabulary)

    def _opening(self) -> Sequence[ChatEvent]:
        """The prompt, before anything of the answer, if it was asked for."""
        echo, self.echo = self.echo, None
        return () if echo is None else (echo.delta(),)

    def _read(self, delta: TextDelta | None) -> Sequence[ChatEvent]:
        if delta is None:
            return ()
        if self._reader is None:
            return (delta,)
        events = tuple(self._reader.push(delta.text))
        self._undecided += 1
        if events:
            if isinstance(events[0], ThinkingDelta):
                self.thinking_tokens += self._undecided
            self._undecided = 0
        return (*events, TextDelta("", delta.tokens)) if delta.tokens else events

    def _end(self, reason: FinishReason) -> None:
        has_calls = self._reader is not None and self._reader.has_calls
        self.ended = FinishReason.TOOL_CALLS if has_calls and reason is FinishReason.STOP else reason


class _ScoredTokens:
    """Tokens with their log-probabilities, sent with the text in which they begin."""

    def __init__(self) -> None:
        self._waiting: list[tuple[ScoredToken, int]] = []
        """Each with the length of its part of the text, in bytes."""
        self._unsent = 0
        """Bytes of the waiting tokens that no text has brought yet."""

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def add(self, score: TokenScore, vocabulary: TokenReader) -> None:
        length = len(vocabulary.token_bytes(score.token))
        self._waiting.append((_scored_token(score, vocabulary), length))
        self._unsent += length

    def rescore(self, scores: Sequence[TokenScore], vocabulary: TokenReader) -> None:
        first = len(self._waiting) - len(scores)
        for place, score in enumerate(scores, first):
            self._waiting[place] = (_scored_token(score, vocabulary), self._waiting[place][1])

    def delta(self, text: str, *, is_last: bool = False) -> TextDelta | None:
        """The text with the tokens that begin in it, if there is anything to send.

        With `is_last` no text comes any more: what a stop string cut off is left out.
        """
        self._unsent = max(self._unsent - len(text.encode()), 0)
        count, behind = len(self._waiting), self._unsent
        while count and 0 < self._waiting[count - 1][1] <= behind:
            count -= 1
            behind -= self._waiting[count][1]
        tokens = tuple(token for token, _ in self._waiting[:count])
        if is_last:
            self._waiting.clear()
        else:
            del self._waiting[:count]
        return TextDelta(text, tokens) if text or tokens else None


def _scored_token(score: TokenScore, vocabulary: TokenReader) -> ScoredToken:
    alternatives = tuple((vocabulary.written(token), logprob) for token, logprob in score.alternatives)
    return ScoredToken(vocabulary.written(score.token), score.logprob, alternatives)


def _failed(failure: str) -> Failed:
    if failure == NO_NUMBERS:
        return Failed(code="internal", message=f"The answer could not go on: {failure}.")
    return Failed(code="constraint_invalid", message=f"The answer could not go on within its constraint: {failure}.")


def _most_tokens(request: ChatRequest, window: int) -> int | None:
    limits = request.limits
    if limits.num_predict >= 0:
        return limits.num_predict
    return SHIFTING_BUDGET_IN_WINDOWS * window if limits.shift else None
