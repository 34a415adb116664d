"""What is sampled and scored from the rows of a step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runner.engine import Chunk, PromptScoring
from runner.llamacpp.candidates import read_row, score_of
from runner.llamacpp.sampler import SamplerChain, ShapedSampler


class StepRows:
    """Knows which row of the last step belongs to what. Used on the engine thread only."""

    def __init__(self, vocabulary: int) -> None:
        self._vocabulary = vocabulary
        self._drafted: dict[int, int] = {}
        """For each sequence with guesses in the last step: the row before the first of them."""

    def sample(self, context: Any, chunks: Sequence[Chunk]) -> list[int]:
        """The tokens for the chunks with a sampler, in order, once a step has computed them; scores go where asked."""
        self._drafted.clear()
        for chunk in chunks:
            # On a GPU the step is still being computed.
            if isinstance(chunk.sampler, ShapedSampler):
                chunk.sampler.prepare()
        tokens = []
        row = -1
        for chunk in chunks:
            if chunk.scoring is not None:
                self._score(context, chunk, chunk.scoring, row + 1)
            row += len(chunk.tokens)
            sampler = chunk.sampler
            if sampler is not None:
                assert isinstance(sampler, SamplerChain)
                first = row - chunk.drafted
                tokens.append(sampler.sample(context, first))
                if chunk.drafted:
                    self._drafted[chunk.sequence_id] = first
        return tokens

    def sample_next(self, context: Any, chunk: Chunk, right: int) -> int:
        """As `Engine.sample_next`."""
        assert isinstance(chunk.sampler, SamplerChain)
        assert 0 < right <= chunk.drafted
        return chunk.sampler.sample(context, self._drafted[chunk.sequence_id] + right)

    def _score(self, context: Any, chunk: Chunk, scoring: PromptScoring, first_row: int) -> None:
        for number, target in enumerate(scoring.targets):
            logits = read_row(context, first_row + number, self._vocabulary)
            scoring.scores[chunk.start + number + 1] = score_of(logits, target, scoring.alternatives)
