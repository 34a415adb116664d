"""Thread counts, with a machine that is only a function."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from runner.worker.step_cost import StepCost
from runner.worker.thread_control import ThreadControl, thread_ladder

SECOND = 1_000_000_000
MILLISECOND = 1_000_000


class Machine:
    """Computes steps on so many processors, some of which others keep busy; only steps move its clock."""

    def __init__(self, processors: int, *, best: int | None = None, seed: int = 1) -> None:
        self.processors = processors
        self.busy = 0
        self.burst_ns = 0
        """What another program takes of one processor during the next step."""
        self.best = best or processors
        self.is_telling = True
        """Whether processor time tells what threads wait for."""
        self.now = 0
        self.steps: list[int] = []
        self.lost = 0
        self._random = random.Random(seed)
        self._cost = StepCost()

    def step_ns(self, rows: int, threads: int) -> int:
        helping = min(threads, self.best)
        ns = rows * 12 * MILLISECOND / helping**0.8 + 0.1 * MILLISECOND * threads
        if threads > self.processors - self.busy:
            # Whoever is not running holds up everybody at every barrier.
            ns *= 3
        return int(ns * self._random.uniform(0.97, 1.08)) + self.burst_ns

    def processor_ns(self, ns: int, threads: int) -> int:
        """Programs that want more processors than there are get the same part of them each."""
        wanted = threads + self.busy
        return int(ns * threads * min(1.0, self.processors / wanted)) - self.burst_ns

    def idle(self) -> float:
        return max(0.0, self.processors - self.busy - (self.steps[-1] if self.steps else 0))

    def run(self, control: ThreadControl, ns: int, rows: Callable[[], int] = lambda: 1) -> list[int]:
        """Steps for so long; the counts that they were computed with."""
        end, first = self.now + ns, len(self.steps)
        while self.now < end:
            wide = rows()
            threads = control.choose(wide, self.now)
            taken = self.step_ns(wide, threads)
            self.now += taken
            self.steps.append(threads)
            expected = self._cost.expected(wide, 0)
            processor_ns = self.processor_ns(taken, threads) if self.is_telling else None
            if control.observe(wide, expected, taken, self.now, processor_ns=processor_ns):
                self._cost.observe(wide, 0, taken)
        return self.steps[first:]


def share(counts: list[int], wanted: int) -> float:
    return counts.count(wanted) / len(counts)


def test_all_processors_of_an_idle_machine_are_used() -> None:
    machine = Machine(2)
    control = ThreadControl(2, idle=machine.idle)
    counts = machine.run(control, 20 * SECOND)
    assert control.narrow == 2
    assert share(counts, 2) > 0.98


@pytest.mark.parametrize("processors", [2, 4, 16])
def test_looking_for_a_better_count_costs_an_idle_machine_less_than_two_percent(processors: int) -> None:
    machine, still = Machine(processors), Machine(processors)
    machine.run(ThreadControl(processors, idle=machine.idle), 60 * SECOND)
    still.run(ThreadControl(processors, is_fixed=True), 60 * SECOND)
    assert len(machine.steps) > 0.98 * len(still.steps)


def test_a_busy_neighbour_is_left_its_processor_within_a_second() -> None:
    machine = Machine(2)
    control = ThreadControl(2, idle=machine.idle)
    machine.run(control, 10 * SECOND)
    machine.busy = 1
    machine.run(control, SECOND)
    assert control.narrow == 1
    assert share(machine.run(control, 20 * SECOND), 1) > 0.95


def test_a_program_that_only_wakes_up_takes_no_thread_from_wide_steps() -> None:
    machine = Machine(2)
    control = ThreadControl(2, idle=machine.idle)

    def rows() -> int:
        machine.burst_ns = 50 * MILLISECOND if len(machine.steps) % 10 == 9 else 0
        return 8

    assert share(machine.run(control, 60 * SECOND, rows), 2) > 0.95


@pytest.mark.parametrize("gain", [1.08, 1.6])
def test_a_second_thread_that_helps_is_kept_though_no_two_steps_take_the_same_time(gain: float) -> None:
    class Uneven(Machine):
        def step_ns(self, rows: int, threads: int) -> int:
            return int(7 * rows * MILLISECOND * (1 if threads > 1 else gain) * self._random.gauss(1, 0.08))

    shares = []
    for seed in range(20):
        machine = Uneven(2, seed=seed)
        shares.append(share(machine.run(ThreadControl(2, idle=machine.idle), 60 * SECOND), 2))
    assert sum(shares) / len(shares) > 0.97


@pytest.mark.parametrize("rows", [1, 8])
def test_a_burst_of_requests_takes_no_thread(rows: int) -> None:
    """Reading them keeps the daemon busy, and the threads that prepare prompts."""
    machine = Machine(2)
    control = ThreadControl(2, idle=machine.idle)
    counts = []
    for _ in range(20):
        counts += machine.run(control, 3 * SECOND, lambda: rows)
        machine.busy = 1
        counts += machine.run(control, 120 * MILLISECOND, lambda: rows)
        machine.busy = 0
    assert share(counts, 2) > 0.95


def test_steps_of_other_shapes_end_a_trial_without_a_word() -> None:
    """What rows cost is known by a line, and steps far from those it was drawn through miss it by half."""

    class Curved(Machine):
        def step_ns(self, rows: int, threads: int) -> int:
            return int((12 * MILLISECOND + 1.5 * MILLISECOND * rows**0.8) / threads**0.8)

    machine = Curved(2)
    control = ThreadControl(2, idle=machine.idle)
    moments = random.Random(1)

    def rows() -> int:
        turn = len(machine.steps) % 40
        return 512 if turn < 2 else 48 if turn < 5 else moments.choice((8, 9, 8, 12))

    counts = machine.run(control, 120 * SECOND, rows)
    wide = [count for number, count in enumerate(counts) if number % 40 < 5]
    assert share(counts, 2) > 0.97
    assert share(wide, 2) == 1.0


def test_a_model_loaded_beside_a_busy_neighbour_does_not_stall_for_long() -> None:
    machine = Machine(2)
    machine.busy = 1
    control = ThreadControl(2, idle=machine.idle)
    machine.run(control, SECOND)
    assert control.narrow == 1


def test_a_processor_that_becomes_free_is_used_again_within_three_seconds() -> None:
    machine = Machine(2)
    machine.busy = 1
    control = ThreadControl(2, idle=machine.idle)
    machine.run(control, 40 * SECOND)
    assert control.narrow == 1
    machine.busy = 0
    machine.run(control, 3 * SECOND)
    assert control.narrow == 2


def test_a_free_processor_is_found_in_the_end_where_nobody_tells_of_it() -> None:
    machine = Machine(2)
    machine.busy = 1
    control = ThreadControl(2)
    machine.run(control, 10 * SECOND)
    machine.busy = 0
    machine.run(control, 70 * SECOND)
    assert control.narrow == 2


def test_a_neighbour_is_noticed_by_the_times_alone_where_processor_time_tells_nothing() -> None:
    machine = Machine(2)
    machine.is_telling = False
    control = ThreadControl(2, idle=machine.idle)
    machine.run(control, 10 * SECOND)
    machine.busy = 1
    machine.run(control, 3 * SECOND)
    assert control.narrow == 1


@pytest.mark.parametrize("seed", range(5))
def test_neighbours_that_come_and_go_cost_little_more_than_if_they_were_foreseen(seed: int) -> None:
    """The best that anybody could do is as many threads as there are processors left, at every step."""
    moments = random.Random(seed)
    machine, foreseeing = Machine(2), Machine(2)
    control, ideal = ThreadControl(2, idle=machine.idle), 0.0
    for turn in range(30):
        machine.busy = foreseeing.busy = turn % 2
        span = int(moments.uniform(0.3, 4) * SECOND)
        machine.run(control, span)
        ideal += span / foreseeing.step_ns(1, 2 - machine.busy)
    assert len(machine.steps) > 0.8 * ideal


def test_a_count_far_below_all_processors_is_found_step_by_step() -> None:
    machine = Machine(16, best=4)
    control = ThreadControl(16, idle=machine.idle)
    machine.run(control, 20 * SECOND)
    assert control.narrow in (4, 6)


def test_processors_that_do_not_help_are_not_asked_again_and_again() -> None:
    machine, still = Machine(16, best=4), Machine(4)
    control = ThreadControl(16, idle=machine.idle)
    machine.run(control, 20 * SECOND)
    before = len(machine.steps)
    machine.run(control, 60 * SECOND)
    still.run(ThreadControl(4, is_fixed=True), 60 * SECOND)
    assert len(machine.steps) - before > 0.96 * len(still.steps)


def test_prompts_and_answers_have_counts_of_their_own() -> None:
    class Bound(Machine):
        def step_ns(self, rows: int, threads: int) -> int:
            self.best = 2 if rows == 1 else 8
            return super().step_ns(rows, threads)

    machine = Bound(8)
    control = ThreadControl(8, idle=machine.idle)
    turn = iter(range(10**9))
    machine.run(control, 60 * SECOND, lambda: 1 if next(turn) % 4 else 64)
    assert control.narrow <= 3
    assert control.wide == 8


def test_a_count_that_was_asked_for_is_kept_whatever_happens() -> None:
    machine = Machine(4)
    control = ThreadControl(4, is_fixed=True, idle=machine.idle)
    machine.busy = 3
    assert set(machine.run(control, 10 * SECOND)) == {4}
    assert (control.narrow, control.wide) == (4, 4)


def test_a_stall_that_comes_once_changes_nothing() -> None:
    machine = Machine(2)
    control = ThreadControl(2, idle=machine.idle)
    machine.run(control, 10 * SECOND)
    control.choose(1, machine.now)
    machine.now += SECOND
    control.observe(1, 10 * MILLISECOND, SECOND, machine.now)
    assert share(machine.run(control, SECOND), 2) > 0.8
    assert control.narrow == 2


@pytest.mark.parametrize(
    ("most", "ladder"),
    [(1, [1]), (2, [1, 2]), (6, [1, 2, 3, 4, 6]), (7, [1, 2, 3, 4, 6, 7]), (16, [1, 2, 3, 4, 6, 8, 12, 16])],
)
def test_the_counts_worth_trying_lie_closer_the_fewer_they_are(most: int, ladder: list[int]) -> None:
    assert thread_ladder(most) == ladder
