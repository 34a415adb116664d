"""Deterministic requests: computed one at a time, in steps that nothing else has a part in."""

from __future__ import annotations

from runner.chat.types import Failed
from runner.engine import SOLO_ROWS, Chunk, Engine, EngineFault, OutOfCells
from runner.errors import RunnerError
from runner.messages import Beside
from runner.worker.reserve import Answer, Reserve
from runner.worker.sequence import Sequence


class SoloQueue:
    """The sequences that asked for it, first come first. One step of the first is a turn.

    A prompt is always cut into the same chunks, no prefix is shared, and no other row is in the
    step: the numbers are the same whatever else runs.
    """

    def __init__(self, engine: Engine, reserve: Reserve) -> None:
        self._engine = engine
        self._reserve = reserve
        self._sequences: list[Sequence] = []
        self._begun: Sequence | None = None

    def __len__(self) -> int:
        return len(self._sequences)

    def add(self, sequence: Sequence) -> None:
        self._sequences.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        self._sequences.remove(sequence)
        if self._begun is sequence:
            self._begun = None

    @property
    def next(self) -> Sequence | None:
        """Whose turn it is; None when nobody can go on. Who began goes on, unless its reader is slow."""
        if self._begun is not None:
            return None if self._begun.paused else self._begun
        return next((sequence for sequence in self._sequences if not sequence.paused), None)

    def next_chunk(self, sequence: Sequence) -> Chunk:
        if sequence.sampler is None:
            sequence.sampler = self._engine.create_sampler(sequence.plan, sequence.tokens)
        start = sequence.computed
        count = min(sequence.pending, SOLO_ROWS)
        is_last = count == sequence.pending
        return Chunk(0, start, sequence.tokens[start : start + count], sequence.sampler if is_last else None)

    def room(self, sequence: Sequence, chunk: Chunk) -> Answer:
        """Whether there is memory for a chunk."""
        size = self._engine.solo_memory(chunk.start + len(chunk.tokens), _room(sequence))
        return self._reserve.ask(Beside.DETERMINISTIC, size)

    def compute(self, sequence: Sequence, chunk: Chunk) -> int | Failed | None:
        """Compute a chunk: the token that was sampled, if one was to be, or what went wrong."""
        try:
            self._engine.use_adapters(sequence.request.adapters)
            if self._begun is not sequence:
                self._engine.begin_solo(_room(sequence))
                self._begun = sequence
                sequence.computed = 0
            token = self._engine.step_solo(chunk)
        except RunnerError as error:
            return Failed(error.code, error.message, dict(error.facts))
        except (EngineFault, OutOfCells) as fault:
            return Failed("internal", f"The engine failed while computing this request ({fault}).")
        sequence.computed += len(chunk.tokens)
        return token


def _room(sequence: Sequence) -> int:
    """The longest that a sequence can become."""
    most = sequence.answer.max_generated
    return sequence.window if most is None else min(sequence.prompt_tokens + most + 1, sequence.window)
