"""What becomes of sequences: their tokens after each step, and their ends."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as ReadOnlySequence

from runner.chat.types import Failed, FinishReason, Started
from runner.engine import Chunk, Engine, EngineFault, MediaChunk, Sampler
from runner.worker.admission import Admission
from runner.worker.draft_plan import DraftPlan
from runner.worker.keeper import Keeper
from runner.worker.outbox import Outbox
from runner.worker.scheduler import PlannedChunk
from runner.worker.sequence import Sequence
from runner.worker.solo import SoloQueue
from runner.worker.turns import Totals

MAX_FAULTS = 2
"""A request whose steps failed so often ends with an error; the second failure was with itself alone."""


class Progress:
    """Holds the sequences from their start to their end, and their samplers. Used on the engine thread.

    Each ends with exactly one Finished or Failed, unless it is cancelled.
    """

    def __init__(
        self,
        engine: Engine,
        keeper: Keeper,
        admission: Admission,
        solo: SoloQueue,
        draft_plan: DraftPlan,
        outbox: Outbox,
        totals: Totals,
        clock: Callable[[], int],
    ) -> None:
        self._engine = engine
        self._keeper = keeper
        self._admission = admission
        self._solo = solo
        self._draft_plan = draft_plan
        self._outbox = outbox
        self._totals = totals
        self._clock = clock
        self._sequences: dict[str, Sequence] = {}

    def __len__(self) -> int:
        return len(self._sequences)

    def start(self, sequence: Sequence) -> None:
        """Take a sequence in; one of which nothing is to be computed ends at once."""
        self._sequences[sequence.request_id] = sequence
        (self._solo if sequence.request.deterministic else self._admission).add(sequence)
        if sequence.answer.ended is not None:
            self._finish(sequence, sequence.answer.ended)
            self._outbox.send()

    def pause(self, request_id: str, *, paused: bool) -> None:
        if sequence := self._sequences.get(request_id):
            sequence.paused = paused

    def cancel(self, request_id: str) -> None:
        if sequence := self._sequences.get(request_id):
            self._drop(sequence)

    def sampler_of(self, sequence: Sequence) -> Sampler:
        """Made when it is first needed; closed when the sequence ends."""
        if sequence.sampler is None:
            sequence.sampler = self._engine.create_sampler(sequence.plan, sequence.text_tokens)
        return sequence.sampler

    # --- after a step -----------------------------------------------------------------------------

    def advance(
        self, planned: list[PlannedChunk], chunks: ReadOnlySequence[Chunk | MediaChunk], tokens: list[int], started: int
    ) -> None:
        """The step that began at `started` has computed these chunks, and sampled tokens for those that wanted one."""
        now = self._clock()
        sampled = iter(tokens)
        for item, chunk in zip(planned, chunks, strict=True):
            sequence = item.sequence
            sequence.computed += item.count
            self._keeper.grown(sequence, item.count)
            sequence.faults = 0
            sequence.first_step_ns = sequence.first_step_ns or started
            if chunk.sampler is None:
                continue
            if isinstance(chunk, Chunk) and chunk.drafted:
                self._verify(sequence, chunk, next(sampled), now)
            else:
                self.accept(sequence, chunk.sampler, next(sampled), now)

    def _verify(self, sequence: Sequence, chunk: Chunk, token: int, now: int) -> None:
        """Take the tokens of a chunk with guesses, as long as they are those that were guessed.

        Each is sampled when the one before it was taken, as without guesses: so penalties, random
        numbers, constraints and the end of an answer see the same.
        """
        assert chunk.sampler is not None
        guesses = chunk.tokens[len(chunk.tokens) - chunk.drafted :]
        sequence.drafts.drafted += len(guesses)
        right = 0
        self.accept(sequence, chunk.sampler, token, now)
        while right < len(guesses) and token == guesses[right] and sequence.request_id in self._sequences:
            right += 1
            sequence.drafts.accepted += 1
            sequence.computed += 1
            self._keeper.grown(sequence, 1)
            token = self._engine.sample_next(chunk, right)
            self.accept(sequence, chunk.sampler, token, now)
        if right < len(guesses) and sequence.sequence_id is not None:
            self._engine.cut(sequence.sequence_id, sequence.computed)

    def accept(self, sequence: Sequence, sampler: Sampler, token: int, now: int) -> None:
        """One more token of an answer: its text goes out, and it may be the last."""
        answer = sequence.answer
        sequence.tokens.append(token)
        self._outbox.take(sequence.request_id, token)
        if sequence.rescoring is not None:
            answer.rescore(sequence.rescoring.scores, self._engine)
            sequence.rescoring = None
        if sequence.drafter is not None:
            sequence.drafter.push(token)
        if sequence.guesser is not None:
            sequence.guesser.push(token)
        self._totals.sampled += 1
        sequence.last_token_ns = now
        if answer.generated == 0:
            sequence.first_token_ns = now
            self._outbox.is_urgent = True
            self._outbox.add(sequence.request_id, Started(sequence.prompt_tokens, sequence.cached.total))
        self._outbox.add(sequence.request_id, *answer.accept(token, self._engine, sampler))
        if answer.failed is not None:
            self.fail(sequence, answer.failed)
        elif answer.ended is not None:
            self._finish(sequence, answer.ended)
        elif sequence.is_window_full:
            self.end_window(sequence)

    def give_way(self, running: ReadOnlySequence[Sequence]) -> None:
        """The engine found no cells for a step although the count allowed it; these had been admitted."""
        if self._admission.give_way():
            return
        [sequence] = running
        self.fail(
            sequence,
            Failed(
                code="insufficient_memory",
                message="The KV cache has no room for this request; shorten it, or unload other models.",
                facts={"tokens": len(sequence.tokens), "context_length": self._engine.info.context_length},
            ),
        )

    def isolate(self, planned: list[PlannedChunk], fault: EngineFault) -> None:
        """Start the sequences of a failed step over, one at a time; end those that failed before."""
        for sequence in [item.sequence for item in planned]:
            sequence.faults += 1
            if sequence.faults >= MAX_FAULTS and len(planned) == 1:
                message = f"The engine failed while computing this request ({fault})."
                self.fail(sequence, Failed(code="internal", message=message))
            elif sequence.sequence_id is not None:
                self._keeper.forget(sequence)

    # --- ends -------------------------------------------------------------------------------------

    def end_window(self, sequence: Sequence) -> None:
        """A sequence has filled its window: it goes on with a part of it, or ends."""
        if sequence.request.limits.shift and sequence.sequence_id is not None:
            keep, discard = sequence.next_shift
            self._keeper.shift(sequence, keep, discard)
            sequence.forget(keep, discard)
            self._draft_plan.forget(sequence)
        else:
            self._finish(sequence, FinishReason.LENGTH)

    def fail(self, sequence: Sequence, failure: Failed) -> None:
        self._outbox.add(sequence.request_id, failure)
        self._drop(sequence, keep=False)

    def _finish(self, sequence: Sequence, reason: FinishReason) -> None:
        answer = sequence.answer
        self._outbox.add(sequence.request_id, *answer.finish())
        self._outbox.add(sequence.request_id, sequence.finished(answer.ended or reason))
        self._drop(sequence)

    def _drop(self, sequence: Sequence, *, keep: bool = True) -> None:
        self._outbox.is_urgent = True
        del self._sequences[sequence.request_id]
        self._draft_plan.forget(sequence)
        if sequence.request.deterministic:
            self._solo.remove(sequence)
        else:
            self._admission.end(sequence, keep=keep)
        if sequence.sampler is not None:
            sequence.sampler.close()
            sequence.sampler = None
