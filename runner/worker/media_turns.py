"""Turns with images and sounds, between the steps of all others."""

from __future__ import annotations

from dataclasses import dataclass

from runner.engine import Engine, MediaChunk, Sampler
from runner.worker.scheduler import PlannedChunk, Scheduler
from runner.worker.sequence import Sequence


@dataclass(frozen=True, slots=True)
class MediaTurn:
    """The next part of one sequence's work with a piece: encoding it when `count` is 0, then places of it."""

    sequence: Sequence
    count: int

    @property
    def planned(self) -> PlannedChunk:
        return PlannedChunk(self.sequence, self.count)


def plan_turn(scheduler: Scheduler, *, rows: int) -> MediaTurn | None:
    """The turn of whoever is due first. One turn is an encoding, which takes as long as it takes, or so many rows.

    A piece whose places see one another is computed at once, whatever `rows` says.
    """
    sequence = scheduler.next_with_media()
    if sequence is None or (span := sequence.next_span) is None:
        return None
    if span.vectors is None:
        return MediaTurn(sequence, 0)
    left = span.end - sequence.computed
    return MediaTurn(sequence, left if span.piece.is_whole else min(left, rows))


def encode(turn: MediaTurn, engine: Engine) -> None:
    """Have the vectors of the piece made. Raises EngineFault."""
    span = turn.sequence.next_span
    assert span is not None
    span.vectors = engine.encode_media(span.piece)


def chunk_of(turn: MediaTurn, sampler: Sampler) -> MediaChunk:
    """What the engine is to compute in a turn with rows; `sampler` is for the end of the prompt."""
    sequence, span = turn.sequence, turn.sequence.next_span
    assert span is not None
    assert span.vectors is not None
    assert sequence.sequence_id is not None
    return MediaChunk(
        sequence_id=sequence.sequence_id,
        start=sequence.computed,
        piece=span.piece,
        vectors=span.vectors,
        first=sequence.computed - span.start,
        count=turn.count,
        sampler=sampler if turn.count == sequence.pending else None,
    )


def forget_computed(sequence: Sequence) -> None:
    """Let the vectors of pieces go that have their cells; should those be lost, they are made again."""
    for span in sequence.media:
        if span.end <= sequence.computed:
            span.vectors = None
