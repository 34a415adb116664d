"""What a loop has done since its model was loaded."""

from __future__ import annotations

from runner.messages import Stats
from runner.worker.admission import Admission
from runner.worker.keeper import Keeper
from runner.worker.thread_control import ThreadControl


class Totals:
    """Counts the turns, of steps and of everything else. Owned by the loop."""

    def __init__(self) -> None:
        self.steps = self.rows = self.sampled = self.step_ns = self.native_ns = 0

    def count(self, rows: int, step_ns: int, native_ns: int) -> None:
        self.steps += 1
        self.rows += rows
        self.step_ns += step_ns
        self.native_ns += native_ns

    def report(self, running: int, waiting: int, keeper: Keeper, admission: Admission, threads: ThreadControl) -> Stats:
        return Stats(
            running=running,
            waiting=waiting,
            cells_used=keeper.ledger.used,
            steps=self.steps,
            rows=self.rows,
            sampled=self.sampled,
            step_ns=self.step_ns,
            native_ns=self.native_ns,
            preempted=admission.parked,
            cache=keeper.stats,
            decode_threads=threads.narrow,
            prefill_threads=threads.wide,
        )
