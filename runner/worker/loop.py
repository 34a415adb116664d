"""The engine thread's loop: obeys commands, and gives each kind of work its turns."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable

from runner.engine import Engine
from runner.messages import (
    CacheOptions,
    Grow,
    KeepWindow,
    Report,
    RoomGiven,
    RoomRefused,
    Stats,
)
from runner.worker.adapter_room import AdapterRoom, AwaitAdapters
from runner.worker.admission import Admission
from runner.worker.commands import CancelSequence, LoopCommand, SetPaused, Stop, WindowMade
from runner.worker.draft_plan import DraftPlan
from runner.worker.encoding import EncodingJob, EncodingQueue
from runner.worker.growth import AwaitWindow, Growth
from runner.worker.keeping import make_keeper, open_files
from runner.worker.media_turns import MediaTurns
from runner.worker.outbox import Outbox
from runner.worker.pace import Pace
from runner.worker.prefix_files import FileEvent
from runner.worker.progress import Progress
from runner.worker.reserve import Reserve
from runner.worker.scheduler import Scheduler
from runner.worker.sequence import Sequence
from runner.worker.shared_steps import SharedSteps
from runner.worker.solo import SoloQueue
from runner.worker.solo_turns import SoloTurns
from runner.worker.step_cost import StepCost
from runner.worker.turns import Totals, Turns
from runner.worker.window_change import Aside, WindowChange, on_a_thread

STEP_TARGET_NS = 80_000_000


class Loop:
    """Puts the parts together that work on the engine thread, and is the only caller of their turns.

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
        clock: Callable[[], int] = time.perf_counter_ns,
        aside: Aside = on_a_thread,
    ) -> None:
        """`step_target_ns` is how long a step may take while somebody reads along.

        `largest_context` is the largest window that there is memory for, where that is known. `aside` has work
        done that is not the engine thread's.
        """
        self._engine = engine
        self._emit = emit
        self._clock = clock
        self._commands: queue.SimpleQueue[LoopCommand] = queue.SimpleQueue()
        self._is_stopping = False
        self._outbox = Outbox(emit, clock)
        cost = StepCost()
        self._scheduler = Scheduler(max_sequences=engine.info.max_sequences, max_rows=engine.info.max_rows)
        cache = cache or CacheOptions()
        self._files = open_files(engine, cache, self.post)
        self._keeper = make_keeper(engine, cache, cost, self._files, clock)
        self._growth = Growth(engine, emit, clock, largest=largest_context)
        self._admission = Admission(self._scheduler, self._keeper, self._growth)
        self._reserve = Reserve(emit)
        self._adapter_room = AdapterRoom(self._reserve)
        self._solo = SoloQueue(engine, self._reserve)
        self._encoding = EncodingQueue(engine, self._reserve)
        self._draft_plan = DraftPlan(engine, cost, step_target_ns, clock)
        self._window_change = WindowChange(engine, self._keeper, self._growth, self._draft_plan, emit, self.post, aside)
        self._turns = Turns(engine, self._outbox, self._tell, clock)
        self._progress = Progress(
            engine,
            self._keeper,
            self._admission,
            self._solo,
            self._draft_plan,
            self._outbox,
            self._turns.totals,
            clock,
        )
        self._pace = Pace(
            engine,
            self._scheduler,
            self._keeper.ledger,
            cost,
            self._draft_plan,
            step_target_ns=step_target_ns,
            clock=clock,
        )
        self._shared_steps = SharedSteps(
            engine,
            self._scheduler,
            self._admission,
            self._keeper.ledger,
            self._draft_plan,
            self._pace,
            self._progress,
            self._turns,
            self._outbox,
        )
        self._media_turns = MediaTurns(engine, self._scheduler, self._pace, self._progress, self._turns, self._outbox)
        self._solo_turns = SoloTurns(self._solo, self._reserve, self._progress, self._turns, self._outbox, clock)

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
            self.obey(wait=not can_step)
            if self._is_stopping:
                return
            can_step = self.step()
            if not can_step:
                self._outbox.send()
            self._turns.report(force=not can_step)

    def save(self, seconds: float) -> None:
        """After `run` has returned: put what is still only in cells and memory on disk, as far as the time allows."""
        deadline = time.monotonic() + seconds
        if self._files is None:
            return
        while time.monotonic() < deadline and self._keeper.tidy(self._clock()):
            pass
        self._files.flush(deadline - time.monotonic())

    def obey(self, *, wait: bool) -> None:
        """Obey the commands that are there; with `wait` there is one, or somebody's time has come."""
        timeout = None
        if wait and (ask_again := self._shared_steps.ask_again_ns) is not None:
            timeout = max(ask_again - self._clock(), 0) / 1e9
        try:
            while True:
                self._handle(self._commands.get(block=wait, timeout=timeout))
                wait = False
        except queue.Empty:
            pass

    def _handle(self, command: LoopCommand) -> None:
        match command:
            case Sequence():
                self._progress.start(command)
            case EncodingJob():
                self._outbox.add_all(self._encoding.add(command))
                self._outbox.send()
            case CancelSequence(request_id):
                self._encoding.cancel(request_id)
                self._progress.cancel(request_id)
            case SetPaused(request_id, paused):
                self._progress.pause(request_id, paused=paused)
            case AwaitWindow():
                self._growth.wait(command)
            case AwaitAdapters():
                self._adapter_room.wait(command)
            case Grow(context_length):
                self._window_change.begin(context_length)
            case WindowMade():
                self._window_change.finish(command)
            case KeepWindow(largest):
                self._growth.was_refused(largest)
            case RoomGiven() | RoomRefused():
                self._reserve.take(command)
                self._adapter_room.settle()
            case FileEvent():
                self._keeper.take(command)
            case Stop():
                self._is_stopping = True

    def step(self) -> bool:
        """A turn for those that share steps and one for those that must not; False when there was nothing to do."""
        has_stepped = self._shared_steps.turn()
        if not has_stepped:
            self._outbox.send()
        has_stepped |= self._media_turns.turn()
        has_stepped |= self._solo_turns.turn()
        has_stepped |= self._step_encoding(beside=has_stepped)
        return self._keeper.tidy(self._clock()) or has_stepped

    def _step_encoding(self, *, beside: bool) -> bool:
        """A turn for inputs that become vectors; beside answers it is short, and seldom."""
        if not self._encoding.is_due(self._clock(), beside=beside):
            return False
        turn = self._turns.begin()
        self._outbox.send()
        rows, events = self._encoding.turn(self._pace.prompt_rows() if beside else None)
        self._outbox.add_all(events)
        self._outbox.is_urgent |= bool(events)
        self._encoding.turn_took(turn.started_ns, self._clock())
        self._turns.close(turn, rows)
        return True

    def _tell(self, totals: Totals) -> None:
        keeper, threads = self._keeper, self._pace.threads
        self._emit(
            Stats(
                running=len(self._scheduler.running) + len(self._solo) + len(self._encoding),
                waiting=len(self._scheduler.waiting),
                cells_used=keeper.ledger.used,
                steps=totals.steps,
                rows=totals.rows,
                sampled=totals.sampled,
                step_ns=totals.step_ns,
                native_ns=totals.native_ns,
                preempted=self._admission.parked,
                cache=keeper.stats,
                decode_threads=threads.narrow,
                prefill_threads=threads.wide,
            )
        )
