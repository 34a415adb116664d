"""What becomes of one request's sampled tokens: text, and the end of the answer."""

from __future__ import annotations

from typing import Protocol

from runner.chat.types import ChatRequest, FinishReason, TextDelta
from runner.worker.detokenizer import TextStream

SHIFTING_BUDGET_IN_WINDOWS = 10
"""An answer that may shift its window and was given no limit ends after so many windows."""


class TokenReader(Protocol):
    """What an answer needs to know of a vocabulary."""

    def token_bytes(self, token: int) -> bytes: ...

    def ends_generation(self, token: int) -> bool: ...


class Answer:
    """One answer as it grows. Owned by the loop.

    `accept` takes each sampled token once; when `ended` is set afterwards there must be no more,
    and `finish` gives the text that was held back.
    """

    __slots__ = ("_text", "ended", "generated", "max_generated")

    def __init__(self, request: ChatRequest, window: int) -> None:
        self._text = TextStream(request.stop)
        self.generated = 0
        """Tokens sampled so far."""
        self.max_generated = _most_tokens(request, window)
        self.ended: FinishReason | None = None
        if self.max_generated == 0:
            self.ended = FinishReason.LENGTH

    @property
    def stop_string(self) -> str | None:
        """The stop string that ended the answer, if one did."""
        return self._text.stopped_by

    def accept(self, token: int, vocabulary: TokenReader) -> TextDelta | None:
        """One more token; the text that is certain by now, if there is any."""
        self.generated += 1
        if vocabulary.ends_generation(token):
            self.ended = FinishReason.STOP
            return None
        text = self._text.push(vocabulary.token_bytes(token))
        if self._text.stopped_by is not None:
            self.ended = FinishReason.STOP
        elif self.generated == self.max_generated:
            self.ended = FinishReason.LENGTH
        return TextDelta(text) if text else None

    def finish(self) -> TextDelta | None:
        """The text that was held back, now that nothing follows."""
        text = self._text.finish()
        return TextDelta(text) if text else None


def _most_tokens(request: ChatRequest, window: int) -> int | None:
    limits = request.limits
    if limits.num_predict >= 0:
        return limits.num_predict
    return SHIFTING_BUDGET_IN_WINDOWS * window if limits.shift else None
