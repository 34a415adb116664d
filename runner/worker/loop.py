"""The engine thread's loop: receive, plan, compute, emit."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from collections.abc import Sequence as ReadOnlySequence

from runner.chat.types import Failed, FinishReason, Started
from runner.engine import Chunk, Engine, EngineFault, MediaChunk, OutOfCells, Sampler
from runner.errors import InsufficientMemory
from runner.messages import (
    Beside,
    CacheOptions,
    Grow,
    GrowFailed,
    Grown,
    KeepWindow,
    Report,
    RoomGiven,
    RoomRefused,
)
from runner.worker.admission import Admission
from runner.worker.commands import CancelSequence, LoopCommand, SetPaused, Stop
from runner.worker.draft_plan import DraftPlan
from runner.worker.encoding import EncodingJob, EncodingQueue
from runner.worker.growth import AwaitWindow, Growth
from runner.worker.idle_processors import IdleProcessors
from runner.worker.keeping import make_keeper, open_files
from runner.worker.media_turns import chunk_of, encode, forget_computed, plan_turn
from runner.worker.outbox import Outbox
from runner.worker.prefix_files import FileEvent
from runner.worker.prompt_share import prompt_rows
from runner.worker.reserve import Answer, Reserve
from runner.worker.scheduler import PlannedChunk, Scheduler
from runner.worker.sequence import Sequence
from runner.worker.solo import SoloQueue
from runner.worker.step_cost import StepCost
from runner.worker.thread_control import ThreadControl
from runner.worker.totals import Totals

STEP_TARGET_NS = 80_000_000
STATS_INTERVAL_NS = 500_000_000
MAX_FAULTS = 2
"""A request whose steps failed so often ends with an error; the second failure was with itself alone."""


class Loop:
    """Owns the sequences and is the only caller of the engine's steps.

    `post` may be called from any thread; `run` blocks until `Stop`. Every sequence that is posted
    ends with exactly one Finished or Failed, unless it is cancelled.
    """

    def __init__(
        self,
        engine: Engine,
        emit: Callable[[Report], None],
        *,
        cache: CacheOptions | None = None,
        largest_context: int = 0,
        step_target_ns: int = STEP_TARGET_NS,
        clock: Callable[[], int] | None = None,
    ) -> None:
        """`step_target_ns` is how long a step may take while somebody reads along.

        `largest_context` is the largest window that there is memory for, where that is known.
        """
        self._engine = engine
        self._emit = emit
        self._clock = clock or time.perf_counter_ns
        self._commands: queue.SimpleQueue[LoopCommand] = queue.SimpleQueue()
        self._step_target_ns = step_target_ns
        self._cost = StepCost()
        self._draft_plan = DraftPlan(engine, self._cost, step_target_ns, self._clock)
        self._threads = ThreadControl(
            engine.info.threads, is_fixed=engine.info.has_fixed_threads, idle=IdleProcessors()
        )
        self._scheduler = Scheduler(max_sequences=engine.info.max_sequences, max_rows=engine.info.max_rows)
        options = cache or CacheOptions()
        self._files = open_files(engine, options, self.post)
        self._keeper = make_keeper(engine, options, self._cost, self._files, self._clock)
        self._growth = Growth(engine, emit, self._clock, largest=largest_context)
        self._admission = Admission(self._scheduler, self._keeper, self._growth)
        self._reserve = Reserve(emit)
        self._solo = SoloQueue(engine, self._reserve)
        self._encoding = EncodingQueue(engine, self._reserve)
        self._ask_again_ns: int | None = None
        """When somebody who waits should be looked at again though nothing has happened."""
        self._sequences: dict[str, Sequence] = {}
        self._outbox = Outbox(emit, self._clock)
        self._stats = Totals()
        self._stats_sent_ns = 0
        self._is_stopping = False

    @property
    def largest_context(self) -> int:
        """The largest window that there is memory for, as far as is known; may be asked from any thread."""
        return self._growth.largest

    def post(self, command: LoopCommand) -> None:
        """Hand a command to the loop; it is obeyed between two steps."""
        self._commands.put(command)

    def run(self) -> None:
        """Serve until `Stop` arrives."""
        can_step = False
        while True:
            self._obey(wait=not can_step)
            if self._is_stopping:
                return
            can_step = self._step()
            if not can_step:
                self._outbox.send()
            self._report_stats(force=not can_step)

    def save(self, seconds: float) -> None:
        """After `run` has returned: put what is still only in cells and memory on disk, as far as the time allows."""
        deadline = time.monotonic() + seconds
        if self._files is None:
            return
        while time.monotonic() < deadline and self._keeper.tidy(self._clock()):
            pass
        self._files.flush(deadline - time.monotonic())

    def _obey(self, *, wait: bool) -> None:
        timeout = None
        if wait and self._ask_again_ns is not None:
            timeout = max(self._ask_again_ns - self._clock(), 0) / 1e9
        try:
            while True:
                self._handle(self._commands.get(block=wait, timeout=timeout))
                wait = False
        except queue.Empty:
            pass

    def _handle(self, command: LoopCommand) -> None:
        match command:
            case Sequence():
                self._start(command)
            case EncodingJob():
                self._outbox.add_all(self._encoding.add(command))
                self._outbox.send()
            case CancelSequence(request_id):
                self._encoding.cancel(request_id)
                if sequence := self._sequences.get(request_id):
                    self._drop(sequence)
            case SetPaused(request_id, paused):
                if sequence := self._sequences.get(request_id):
                    sequence.paused = paused
            case AwaitWindow():
                self._growth.wait(command)
            case Grow(context_length):
                self._grow(context_length)
            case KeepWindow(largest):
                self._growth.was_refused(largest)
            case RoomGiven() | RoomRefused():
                self._reserve.take(command)
            case FileEvent():
                self._keeper.take(command)
            case Stop():
                self._is_stopping = True

    def _start(self, sequence: Sequence) -> None:
        self._sequences[sequence.request_id] = sequence
        (self._solo if sequence.request.deterministic else self._scheduler).add(sequence)
        if sequence.answer.ended is not None:
            self._finish(sequence, sequence.answer.ended)
            self._outbox.send()

    def _step(self) -> bool:
        """A turn for those that share steps and one for those that must not; False when there was nothing to do."""
        has_stepped = self._step_together()
        if not has_stepped:
            self._outbox.send()
        has_stepped |= self._step_media()
        has_stepped |= self._step_solo()
        has_stepped |= self._step_encoding(beside=has_stepped)
        return self._keeper.tidy(self._clock()) or has_stepped

    def _step_encoding(self, *, beside: bool) -> bool:
        """A turn for inputs that become vectors; beside answers it is short, and seldom."""
        started, native_before = self._clock(), self._native_ns
        if not self._encoding.is_due(started, beside=beside):
            return False
        self._outbox.send()
        rows, events = self._encoding.turn(self._prefill_rows() if beside else None)
        self._outbox.add_all(events)
        self._outbox.send()
        self._encoding.turn_took(started, self._clock())
        self._stats.count(rows, self._clock() - started, self._native_ns - native_before)
        return True

    def _step_media(self) -> bool:
        """A turn for an image or a sound: nothing else can be computed with it, and encoding cannot be cut short."""
        engine = self._engine
        started, native_before = self._clock(), self._native_ns
        is_read_along = any(one.is_decoding and not one.paused for one in self._scheduler.running)
        rows = self._prefill_rows() if is_read_along else engine.info.max_rows
        turn = plan_turn(self._scheduler, rows=rows)
        if turn is None:
            return False
        self._outbox.send()
        sequence = turn.sequence
        sequence.first_step_ns = sequence.first_step_ns or started
        try:
            if turn.count == 0:
                encode(turn, engine)
            else:
                chunk = chunk_of(turn, self._sampler_of(sequence))
                engine.use_adapters(sequence.request.adapters)
                token = engine.step_media(chunk)
                self._advance([turn.planned], [chunk], [] if token is None else [token], started)
                forget_computed(sequence)
        except OutOfCells:
            self._give_way()
        except EngineFault as fault:
            self._fail(sequence, Failed(code="internal", message=f"An image or sound could not be computed ({fault})."))
        self._close_turn(turn.count, started, native_before)
        self._outbox.send()
        return True

    def _step_solo(self) -> bool:
        sequence = self._solo.next
        if sequence is None:
            return False
        started, native_before = self._clock(), self._native_ns
        self._outbox.send()
        chunk = self._solo.next_chunk(sequence)
        room = self._solo.room(sequence, chunk)
        if room is Answer.ASKED:
            return False
        if room is Answer.REFUSED:
            self._fail(sequence, self._reserve.refusal(Beside.DETERMINISTIC, "a deterministic answer of this length"))
            self._outbox.send()
            return True
        if not sequence.first_step_ns:
            sequence.first_step_ns = started
        outcome = self._solo.compute(sequence, chunk)
        if isinstance(outcome, Failed):
            self._fail(sequence, outcome)
        elif chunk.sampler is not None:
            assert outcome is not None
            self._accept(sequence, chunk.sampler, outcome, self._clock())
        self._close_turn(len(chunk.tokens), started, native_before)
        self._outbox.send()
        return True

    def _step_together(self) -> bool:
        """Compute one batch; False when there was nothing to compute."""
        engine = self._engine
        started, native_before = self._clock(), self._native_ns
        self._ask_again_ns = None
        self._end_what_is_too_long()
        if not self._admission.make_room():
            return False
        self._ask_again_ns = self._admission.admit(started)
        planned = self._scheduler.plan_step(prefill_rows=self._prefill_rows(), now=started)
        if not planned:
            return False
        engine.use_adapters(planned[0].sequence.request.adapters)
        drafts = self._drafts(planned)
        chunks = [self._chunk(item, guesses) for item, guesses in zip(planned, drafts, strict=True)]
        rows = sum(len(chunk.tokens) for chunk in chunks)
        began, processor_began = self._clock(), time.process_time_ns()
        expected = self._cost.expected(rows, self._keeper.ledger.used + rows)
        if not self._outbox.may_wait(began + expected):
            self._outbox.send()
        engine.set_threads(self._threads.choose(rows, began))
        try:
            tokens = engine.step(chunks)
        except OutOfCells:
            if any(drafts):
                self._draft_plan.pause()
            else:
                self._give_way()
        except EngineFault as fault:
            self._isolate(planned, fault)
        else:
            # With a GPU, threads rest while it computes: that is no sign of a neighbour.
            processor_ns = None if engine.info.gpu_layers else time.process_time_ns() - processor_began
            self._learn(rows, sum(map(len, drafts)), began, processor_ns)
            self._advance(planned, chunks, tokens, started)
        self._close_turn(rows, started, native_before)
        return True

    def _close_turn(self, rows: int, started: int, native_before: int) -> None:
        """Count a turn. What ended in it goes out behind the totals: who looks after an answer finds it counted."""
        self._stats.count(rows, self._clock() - started, self._native_ns - native_before)
        if self._outbox.is_urgent:
            self._report_stats(force=True)
            self._outbox.send()

    @property
    def _native_ns(self) -> int:
        draft = self._engine.draft
        return self._engine.native_ns + (draft.native_ns if draft is not None else 0)

    def _drafts(self, planned: list[PlannedChunk]) -> list[list[int]]:
        cells = self._keeper.ledger.used
        free = self._engine.info.context_length - cells - self._scheduler.pending
        return self._draft_plan.guesses(planned, cells=cells, free=free)

    def _learn(self, rows: int, drafted: int, began: int, processor_ns: int | None) -> None:
        cells, now = self._keeper.ledger.used + rows, self._clock()
        expected = self._cost.expected(rows, cells)
        if self._threads.observe(rows, expected, now - began, now, processor_ns=processor_ns):
            self._draft_plan.observe(rows, drafted, cells, now - began)
            self._cost.observe(rows, cells, now - began)

    def _prefill_rows(self) -> int:
        """How many tokens of prompts may stand beside the running answers in the next step."""
        decoding = sum(sequence.is_decoding for sequence in self._scheduler.running if not sequence.paused)
        return prompt_rows(self._cost, self._step_target_ns, cells=self._keeper.ledger.used, decoding=decoding)

    def _chunk(self, item: PlannedChunk, guesses: list[int]) -> Chunk:
        sequence, count = item.sequence, item.count
        assert sequence.sequence_id is not None
        sampler = self._sampler_of(sequence)
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

    def _sampler_of(self, sequence: Sequence) -> Sampler:
        if sequence.sampler is None:
            sequence.sampler = self._engine.create_sampler(sequence.plan, sequence.text_tokens)
        return sequence.sampler

    def _advance(
        self, planned: list[PlannedChunk], chunks: ReadOnlySequence[Chunk | MediaChunk], tokens: list[int], started: int
    ) -> None:
        now = self._clock()
        sampled = iter(tokens)
        for item, chunk in zip(planned, chunks, strict=True):
            sequence = item.sequence
            sequence.computed += item.count
            self._keeper.grown(sequence, item.count)
            sequence.faults = 0
            if not sequence.first_step_ns:
                sequence.first_step_ns = started
            if chunk.sampler is None:
                continue
            if isinstance(chunk, Chunk) and chunk.drafted:
                self._verify(sequence, chunk, next(sampled), now)
            else:
                self._accept(sequence, chunk.sampler, next(sampled), now)

    def _verify(self, sequence: Sequence, chunk: Chunk, token: int, now: int) -> None:
        """Take the tokens of a chunk with guesses, as long as they are those that were guessed.

        Each is sampled when the one before it was taken, as without guesses: so penalties, random
        numbers, constraints and the end of an answer see the same.
        """
        assert chunk.sampler is not None
        guesses = chunk.tokens[len(chunk.tokens) - chunk.drafted :]
        sequence.drafts.drafted += len(guesses)
        right = 0
        self._accept(sequence, chunk.sampler, token, now)
        while right < len(guesses) and token == guesses[right] and sequence.request_id in self._sequences:
            right += 1
            sequence.drafts.accepted += 1
            sequence.computed += 1
            self._keeper.grown(sequence, 1)
            token = self._engine.sample_next(chunk, right)
            self._accept(sequence, chunk.sampler, token, now)
        if right < len(guesses) and sequence.sequence_id is not None:
            self._engine.cut(sequence.sequence_id, sequence.computed)

    def _accept(self, sequence: Sequence, sampler: Sampler, token: int, now: int) -> None:
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
        self._stats.sampled += 1
        sequence.last_token_ns = now
        if answer.generated == 0:
            sequence.first_token_ns = now
            self._outbox.is_urgent = True
            self._outbox.add(sequence.request_id, Started(sequence.prompt_tokens, sequence.cached.total))
        self._outbox.add(sequence.request_id, *answer.accept(token, self._engine, sampler))
        if answer.failed is not None:
            self._fail(sequence, answer.failed)
        elif answer.ended is not None:
            self._finish(sequence, answer.ended)
        elif sequence.is_window_full:
            self._end_of_window(sequence)

    def _grow(self, context_length: int) -> None:
        try:
            if context_length > self._engine.info.context_length:
                self._keeper.move_into(context_length)
                self._draft_plan.restart(context_length)
        except InsufficientMemory as error:
            self._emit(GrowFailed(error.message))
            self._growth.was_refused(self._engine.info.context_length)
        else:
            self._emit(Grown(self._engine.info))
            self._growth.was_given()

    def _end_what_is_too_long(self) -> None:
        """Answers that have filled the window, and no larger one will come: their own window was only a wish."""
        room = self._engine.info.context_length
        for sequence in [*self._scheduler.running, *self._scheduler.waiting]:
            if len(sequence.tokens) > room and not self._growth.may_give(len(sequence.tokens)):
                sequence.window = room
                self._end_of_window(sequence)

    def _end_of_window(self, sequence: Sequence) -> None:
        if sequence.request.limits.shift and sequence.sequence_id is not None:
            self._shift(sequence)
        else:
            self._finish(sequence, FinishReason.LENGTH)

    def _shift(self, sequence: Sequence) -> None:
        assert sequence.sequence_id is not None
        keep, discard = sequence.next_shift
        self._keeper.shift(sequence, keep, discard)
        sequence.forget(keep, discard)
        self._draft_plan.forget(sequence)

    def _finish(self, sequence: Sequence, reason: FinishReason) -> None:
        answer = sequence.answer
        self._outbox.add(sequence.request_id, *answer.finish())
        self._outbox.add(sequence.request_id, sequence.finished(answer.ended or reason))
        self._drop(sequence)

    def _fail(self, sequence: Sequence, failure: Failed) -> None:
        self._outbox.add(sequence.request_id, failure)
        self._drop(sequence, keep=False)

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

    def _give_way(self) -> None:
        """The engine found no cells for the step although the count allowed it."""
        if self._admission.give_way():
            return
        [sequence] = self._scheduler.running
        self._fail(
            sequence,
            Failed(
                code="insufficient_memory",
                message="The KV cache has no room for this request; shorten it or raise num_ctx.",
                facts={"tokens": len(sequence.tokens), "context_length": self._engine.info.context_length},
            ),
        )

    def _isolate(self, planned: list[PlannedChunk], fault: EngineFault) -> None:
        """Start the sequences of a failed step over, one at a time; end those that failed before."""
        for sequence in [item.sequence for item in planned]:
            sequence.faults += 1
            if sequence.faults >= MAX_FAULTS and len(planned) == 1:
                message = f"The engine failed while computing this request ({fault})."
                self._fail(sequence, Failed(code="internal", message=message))
            elif sequence.sequence_id is not None:
                self._keeper.forget(sequence)

    def _report_stats(self, *, force: bool) -> None:
        now = self._clock()
        if not force and now - self._stats_sent_ns < STATS_INTERVAL_NS:
            return
        self._stats_sent_ns = now
        waiting, running = len(self._scheduler.waiting), len(self._scheduler.running)
        running += len(self._solo) + len(self._encoding)
        self._emit(self._stats.report(running, waiting, self._keeper, self._admission, self._threads))
