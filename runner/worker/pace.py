"""What steps cost at the moment, and what follows: their threads, and the rows of prompts beside running answers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from runner.engine import Engine
from runner.worker.draft_plan import DraftPlan
from runner.worker.idle_processors import IdleProcessors
from runner.worker.ledger import CellLedger
from runner.worker.scheduler import Scheduler
from runner.worker.step_cost import StepCost
from runner.worker.thread_control import ThreadControl

UNMEASURED_ROWS = 32
"""Prompt tokens beside running answers while nobody knows what they cost."""
PROMPTS_PART = 4
"""Prompts get at least one part in so many of the step target, however long the answers' own rows take."""
MIN_ROWS = 8
"""Prompt tokens beside running answers even when those fill the step alone: everybody gets on."""


@dataclass(frozen=True, slots=True)
class Timing:
    """A step of so many rows that has begun."""

    rows: int
    began_ns: int
    processor_ns: int
    expected_ns: float


class Pace:
    """Times the steps that sequences share, for all who learn from that. Used on the engine thread."""

    def __init__(
        self,
        engine: Engine,
        scheduler: Scheduler,
        ledger: CellLedger,
        cost: StepCost,
        draft_plan: DraftPlan,
        *,
        step_target_ns: int,
        clock: Callable[[], int],
    ) -> None:
        info = engine.info
        self.threads = ThreadControl(info.threads, is_fixed=info.has_fixed_threads, idle=IdleProcessors())
        self._engine = engine
        self._scheduler = scheduler
        self._ledger = ledger
        self._cost = cost
        self._draft_plan = draft_plan
        self._step_target_ns = step_target_ns
        self._clock = clock

    def prompt_rows(self) -> int:
        """How many tokens of prompts may stand beside the running answers in the next step."""
        cells = self._ledger.used
        decoding = sum(sequence.is_decoding for sequence in self._scheduler.running if not sequence.paused)
        return prompt_rows(self._cost, self._step_target_ns, cells=cells, decoding=decoding)

    def begin(self, rows: int) -> Timing:
        """A step is about to be computed."""
        expected = self._cost.expected(rows, self._ledger.used + rows)
        return Timing(rows, self._clock(), time.process_time_ns(), expected)

    def choose_threads(self, timing: Timing) -> None:
        self._engine.set_threads(self.threads.choose(timing.rows, timing.began_ns))

    def learn(self, timing: Timing, *, drafted: int) -> None:
        """The step was computed; `drafted` of its rows were guesses. To be told before its cells are counted."""
        # With a GPU, threads rest while it computes: that is no sign of a neighbour.
        processor_ns = None if self._engine.info.gpu_layers else time.process_time_ns() - timing.processor_ns
        rows, cells, now = timing.rows, self._ledger.used + timing.rows, self._clock()
        taken = now - timing.began_ns
        if self.threads.observe(rows, timing.expected_ns, taken, now, processor_ns=processor_ns):
            self._draft_plan.observe(rows, drafted, cells, taken)
            self._cost.observe(rows, cells, taken)


def prompt_rows(cost: StepCost, step_target_ns: int, *, cells: int, decoding: int) -> int:
    """How many tokens of prompts may stand beside `decoding` answers, with `cells` cells in use."""
    if not cost.is_known:
        return UNMEASURED_ROWS
    rows = cost.rows_within(step_target_ns, cells, beside=decoding)
    # Where the answers alone fill a step, as on a machine with other work, prompts would never end.
    share = cost.rows_for(step_target_ns / PROMPTS_PART, cells)
    return max(rows, share, MIN_ROWS)
