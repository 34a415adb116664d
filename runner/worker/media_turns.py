"""Turns with images and sounds, between the steps of all others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from runner.chat.types import Failed
from runner.engine import Engine, EngineFault, MediaChunk, OutOfCells, Sampler
from runner.worker.outbox import Outbox
from runner.worker.pace import Pace
from runner.worker.progress import Progress
from runner.worker.scheduler import PlannedChunk, Scheduler
from runner.worker.sequence import Sequence
from runner.worker.turns import Turns


@dataclass(frozen=True, slots=True)
class MediaTurn:
    """The next part of one sequence's work with a piece: encoding it when `count` is 0, then places of it."""

    sequence: Sequence
    count: int


class MediaTurns:
    """Takes them. Used on the engine thread.

    Nothing else can be computed with an image or a sound, and encoding one cannot be cut short.
    """

    def __init__(
        self, engine: Engine, scheduler: Scheduler, pace: Pace, progress: Progress, turns: Turns, outbox: Outbox
    ) -> None:
        self._engine = engine
        self._scheduler = scheduler
        self._pace = pace
        self._progress = progress
        self._turns = turns
        self._outbox = outbox

    def turn(self) -> bool:
        """False when nobody is at one."""
        planned = plan_turn(self._scheduler, self._rows)
        if planned is None:
            return False
        turn = self._turns.begin()
        self._outbox.send()
        sequence = planned.sequence
        sequence.first_step_ns = sequence.first_step_ns or turn.started_ns
        try:
            if planned.count == 0:
                _encode(sequence, self._engine)
            else:
                self._compute(planned, turn.started_ns)
        except OutOfCells:
            self._progress.give_way(self._scheduler.running)
        except EngineFault as fault:
            message = f"An image or sound could not be computed ({fault})."
            self._progress.fail(sequence, Failed(code="internal", message=message))
        self._turns.close(turn, planned.count)
        self._outbox.send()
        return True

    def _rows(self) -> int:
        """How many places may be computed in one turn."""
        is_read_along = any(one.is_decoding and not one.paused for one in self._scheduler.running)
        return self._pace.prompt_rows() if is_read_along else self._engine.info.max_rows

    def _compute(self, planned: MediaTurn, started: int) -> None:
        sequence = planned.sequence
        chunk = _chunk_of(planned, self._progress.sampler_of(sequence))
        self._engine.use_adapters(sequence.request.adapters)
        token = self._engine.step_media(chunk)
        tokens = [] if token is None else [token]
        self._progress.advance([PlannedChunk(sequence, planned.count)], [chunk], tokens, started)
        _forget_computed(sequence)


def plan_turn(scheduler: Scheduler, rows: Callable[[], int]) -> MediaTurn | None:
    """The turn of whoever is due first. One turn is an encoding, which takes as long as it takes, or so many rows.

    `rows` tells how many; it is asked when there is somebody. A piece whose places see one another is computed at
    once, whatever that says.
    """
    sequence = scheduler.next_with_media()
    if sequence is None or (span := sequence.next_span) is None:
        return None
    if span.vectors is None:
        return MediaTurn(sequence, 0)
    left = span.end - sequence.computed
    return MediaTurn(sequence, left if span.piece.is_whole else min(left, rows()))


def _encode(sequence: Sequence, engine: Engine) -> None:
    span = sequence.next_span
    assert span is not None
    span.vectors = engine.encode_media(span.piece)


def _chunk_of(turn: MediaTurn, sampler: Sampler) -> MediaChunk:
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


def _forget_computed(sequence: Sequence) -> None:
    """Let the vectors of pieces go that have their cells; should those be lost, they are made again."""
    for span in sequence.media:
        if span.end <= sequence.computed:
            span.vectors = None
