"""Turns of deterministic requests: one step of whoever's turn it is."""

from __future__ import annotations

from collections.abc import Callable

from runner.chat.types import Failed
from runner.messages import Beside
from runner.worker.outbox import Outbox
from runner.worker.progress import Progress
from runner.worker.reserve import Answer, Reserve
from runner.worker.solo import SoloQueue
from runner.worker.turns import Turns


class SoloTurns:
    """Takes them. Used on the engine thread."""

    def __init__(
        self,
        queue: SoloQueue,
        reserve: Reserve,
        progress: Progress,
        turns: Turns,
        outbox: Outbox,
        clock: Callable[[], int],
    ) -> None:
        self._queue = queue
        self._reserve = reserve
        self._progress = progress
        self._turns = turns
        self._outbox = outbox
        self._clock = clock

    def turn(self) -> bool:
        """False when nobody can go on."""
        sequence = self._queue.next
        if sequence is None:
            return False
        turn = self._turns.begin()
        self._outbox.send()
        chunk = self._queue.next_chunk(sequence)
        room = self._queue.room(sequence, chunk)
        if room is Answer.ASKED:
            return False
        if room is Answer.REFUSED:
            refusal = self._reserve.refusal(Beside.DETERMINISTIC, "a deterministic answer of this length")
            self._progress.fail(sequence, refusal)
            self._outbox.send()
            return True
        sequence.first_step_ns = sequence.first_step_ns or turn.started_ns
        outcome = self._queue.compute(sequence, chunk)
        if isinstance(outcome, Failed):
            self._progress.fail(sequence, outcome)
        elif chunk.sampler is not None:
            assert outcome is not None
            self._progress.accept(sequence, chunk.sampler, outcome, self._clock())
        self._turns.close(turn, len(chunk.tokens))
        self._outbox.send()
        return True
