"""Learning what steps cost."""

from __future__ import annotations

import random
import timeit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.worker.step_cost import StepCost

MS = 1_000_000


def true_cost(rows: int, cells: int, *, slower: float = 1.0) -> int:
    return int(slower * (2 * MS + rows * 0.5 * MS + rows * cells * 100))


def learned(steps: int, *, slower: float = 1.0, cost: StepCost | None = None, noise: float = 0.0) -> StepCost:
    cost = cost or StepCost()
    random_ = random.Random(1)
    for _ in range(steps):
        rows, cells = random_.choice([1, 2, 4, 8, 16, 64, 128]), random_.randrange(100, 8000)
        cost.observe(rows, cells, int(true_cost(rows, cells, slower=slower) * random_.uniform(1 - noise, 1 + noise)))
    return cost


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_what_was_learned_foretells_other_steps(noise: float) -> None:
    cost = learned(200, noise=noise)
    for rows, cells in ((32, 500), (100, 4000), (6, 7000)):
        assert cost.expected(rows, cells) == pytest.approx(true_cost(rows, cells), rel=0.01 + noise)


def test_a_machine_that_becomes_slower_is_followed() -> None:
    cost = learned(200)
    learned(160, slower=3.0, cost=cost)
    assert cost.expected(32, 1000) == pytest.approx(true_cost(32, 1000, slower=3.0), rel=0.05)


def test_one_step_that_hung_does_not_spoil_the_rest() -> None:
    cost = learned(200)
    cost.observe(16, 1000, 60_000 * MS)
    assert cost.expected(16, 1000) < 2 * true_cost(16, 1000)


def test_rows_are_as_many_as_fit_into_the_time() -> None:
    cost = learned(200)
    rows = cost.rows_within(80 * MS, 2000, beside=4)
    assert true_cost(rows + 4, 2000) <= 82 * MS
    assert true_cost(rows + 8, 2000) >= 78 * MS


def test_no_row_fits_beside_rows_that_fill_the_step_alone() -> None:
    assert learned(200).rows_within(5 * MS, 2000, beside=16) <= 0


def test_no_more_is_planned_than_was_nearly_seen() -> None:
    cost = StepCost()
    for _ in range(10):
        cost.observe(8, 100, 1 * MS)
    assert cost.rows_within(1e12, 100, beside=0) <= 8 * 4


def test_a_prompt_costs_its_steps() -> None:
    cost = learned(200)
    assert cost.prefill(300, 1000, step_rows=128) == pytest.approx(
        2 * true_cost(128, 1000) + true_cost(44, 1000), rel=0.02
    )


@given(st.lists(st.tuples(st.integers(1, 512), st.integers(0, 100_000), st.integers(1, 10**12)), max_size=50))
def test_no_step_is_foretold_to_take_less_than_nothing(steps: list[tuple[int, int, int]]) -> None:
    cost = StepCost()
    for rows, cells, ns in steps:
        cost.observe(rows, cells, ns)
        for asked in (1, 100):
            assert cost.expected(asked, 1000) >= 0
        assert cost.expected(100, 1000) >= cost.expected(1, 1000)


def test_learning_costs_far_less_than_a_step() -> None:
    cost = learned(50)
    assert min(timeit.repeat(lambda: cost.observe(8, 1000, MS), number=100, repeat=5)) / 100 < 0.5e-3


def test_rows_that_make_a_step_longer_are_counted_without_its_fixed_cost() -> None:
    rows = learned(200).rows_for(20 * MS, 2000)
    longer = true_cost(16 + rows, 2000) - true_cost(16, 2000)
    assert 18 * MS <= longer <= 22 * MS
