"""Steps that sequences share: who has a part in the next one, and what it computes."""

from __future__ import annotations

from runner.engine import Chunk, Engine, EngineFault, OutOfCells
from runner.worker.admission import Admission
from runner.worker.draft_plan import DraftPlan
from runner.worker.ledger import CellLedger
from runner.worker.outbox import Outbox
from runner.worker.pace import Pace
from runner.worker.progress import Progress
from runner.worker.scheduler import PlannedChunk, Scheduler
from runner.worker.turns import Turns


class SharedSteps:
    """Plans and computes them, one a turn. Used on the engine thread."""

    def __init__(
        self,
        engine: Engine,
        scheduler: Scheduler,
        admission: Admission,
        ledger: CellLedger,
        draft_plan: DraftPlan,
        pace: Pace,
        progress: Progress,
        turns: Turns,
        outbox: Outbox,
    ) -> None:
        self._engine = engine
        self._scheduler = scheduler
        self._admission = admission
        self._ledger = ledger
        self._draft_plan = draft_plan
        self._pace = pace
        self._progress = progress
        self._turns = turns
        self._outbox = outbox
        self.ask_again_ns: int | None = None
        """When somebody who waits should be looked at again though nothing has happened."""

    def turn(self) -> bool:
        """Compute one batch; False when there was nothing to compute."""
        turn = self._turns.begin()
        planned = self._plan(turn.started_ns)
        if not planned:
            return False
        engine = self._engine
        engine.use_adapters(planned[0].sequence.request.adapters)
        guesses = self._guesses(planned)
        chunks = [self._chunk(item, ahead) for item, ahead in zip(planned, guesses, strict=True)]
        timing = self._pace.begin(sum(len(chunk.tokens) for chunk in chunks))
        if not self._outbox.may_wait(timing.began_ns + timing.expected_ns):
            self._outbox.send()
        self._pace.choose_threads(timing)
        try:
            tokens = engine.step(chunks)
        except OutOfCells:
            if any(guesses):
                self._draft_plan.pause()
            else:
                self._progress.give_way(self._scheduler.running)
        except EngineFault as fault:
            self._progress.isolate(planned, fault)
        else:
            self._pace.learn(timing, drafted=sum(map(len, guesses)))
            self._progress.advance(planned, chunks, tokens, turn.started_ns)
        self._turns.close(turn, timing.rows)
        return True

    def _plan(self, now: int) -> list[PlannedChunk]:
        self.ask_again_ns = None
        for sequence in self._admission.outgrown():
            self._progress.end_window(sequence)
        if not self._admission.make_room():
            return []
        self.ask_again_ns = self._admission.admit(now)
        prompt_rows = self._pace.prompt_rows() if self._scheduler.has_prompts else 0
        return self._scheduler.plan_step(prefill_rows=prompt_rows, now=now)

    def _guesses(self, planned: list[PlannedChunk]) -> list[list[int]]:
        cells = self._ledger.used
        free = self._engine.info.context_length - cells - self._scheduler.pending
        return self._draft_plan.guesses(planned, cells=cells, free=free)

    def _chunk(self, item: PlannedChunk, guesses: list[int]) -> Chunk:
        sequence, count = item.sequence, item.count
        assert sequence.sequence_id is not None
        sampler = self._progress.sampler_of(sequence)
        start = sequence.computed
        is_last = count == len(sequence.tokens) - start
        return Chunk(
            sequence_id=sequence.sequence_id,
            start=start,
            tokens=sequence.tokens[start : start + count] + guesses,
            sampler=sampler if is_last else None,
            scoring=sequence.scoring(start, count),
            drafted=len(guesses),
        )
