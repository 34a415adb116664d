"""Answers that another worker began: they go on where they stood when it died."""

from __future__ import annotations

from collections.abc import Sequence as ReadOnlySequence

from runner.engine import TokenScore
from runner.worker.answer import TokenReader
from runner.worker.rescoring import Rescoring
from runner.worker.sequence import Sequence

MOST_RETAKEN = 512
"""More tokens would take seconds longer one at a time."""


def resume(sequence: Sequence, taken: ReadOnlySequence[int], vocabulary: TokenReader) -> None:
    """Have a new sequence's answer take the tokens it took already, and tell nothing of them.

    All that reads an answer (text, stop strings, thoughts, calls, counts, shifts of the window) is then in the
    state it was in; the tokens themselves are to be computed like those of a prompt, except that few of an answer
    that always takes the likeliest token are computed one at a time: sums that are added up in another order could
    make another token the likeliest.
    """
    for token in taken:
        sequence.tokens.append(token)
        sequence.answer.accept(token, vocabulary, _Retaken(token))
        if sequence.is_window_full and sequence.request.limits.shift:
            sequence.forget(*sequence.next_shift)
    if sequence.request.sampling.temperature <= 0 and len(taken) <= MOST_RETAKEN and not sequence.is_shifted:
        sequence.retaken = len(sequence.tokens)
    if unscored := sequence.answer.untold_scores:
        alternatives = sequence.request.logprobs
        assert alternatives is not None
        sequence.rescoring = Rescoring(sequence.tokens, unscored, alternatives)


class _Retaken:
    """What a sampler would say of a token that was sampled elsewhere."""

    is_complete = False
    failure: str | None = None

    def __init__(self, token: int) -> None:
        self.score: TokenScore | None = TokenScore(token, 0.0, ())
        """Not told: what was told is not told again, and the rest is scored anew."""

    def close(self) -> None: ...
