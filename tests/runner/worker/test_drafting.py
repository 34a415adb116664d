"""Guesses taken from the text so far, and when they pay."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.worker.drafting import DraftCost, Drafter, worthwhile

PASSAGE = [7, 3, 9, 4, 8, 2, 6, 5, 1, 0]


def test_what_followed_the_same_tokens_before_is_guessed() -> None:
    drafter = Drafter([*PASSAGE, 50, 7, 3, 9])
    assert drafter.guesses(4) == [4, 8, 2, 6]


def test_nothing_is_guessed_when_the_end_was_never_seen() -> None:
    assert Drafter(PASSAGE).guesses(8) == []
    assert Drafter([]).guesses(8) == []
    assert Drafter([1, 2]).guesses(8) == []


def test_no_more_is_guessed_than_there_was_and_no_more_than_is_asked() -> None:
    drafter = Drafter([*PASSAGE, *PASSAGE[:3]])
    for token in PASSAGE[3:8]:
        drafter.push(token)
    assert drafter.guesses(2) == [1, 0]
    assert drafter.guesses(30) == [1, 0, *PASSAGE[:8]]
    assert drafter.guesses(0) == []


def test_few_tokens_are_guessed_until_more_than_chance_has_come_again() -> None:
    text = list(range(100, 200))
    drafter = Drafter([*text, *text[:3]])
    lengths = []
    for token in text[3:12]:
        lengths.append(len(drafter.guesses(30)))
        drafter.push(token)
    assert lengths == [4, 4, 4, 6, 8, 10, 12, 14, 16]
    drafter.push(999)
    for token in text[:3]:
        drafter.push(token)
    assert len(drafter.guesses(30)) == 4


def test_the_place_with_the_longer_match_is_copied_though_another_came_later() -> None:
    drafter = Drafter([1, 2, 3, 4, 5, 60, 9, 3, 4, 5, 70, 1, 2, 3, 4, 5])
    assert drafter.guesses(1) == [60]


def test_of_equal_matches_the_latest_is_copied() -> None:
    assert Drafter([3, 4, 5, 60, 3, 4, 5, 70, 3, 4, 5]).guesses(1) == [70]


def test_a_stretch_is_followed_to_its_end_and_left_where_the_text_goes_its_own_way() -> None:
    drafter = Drafter([*PASSAGE, 50, 7, 3, 9])
    for token in (4, 8):
        drafter.push(token)
    assert drafter.guesses(2) == [2, 6]
    drafter.push(99)
    assert drafter.guesses(2) == []


def test_guesses_that_were_right_raise_the_chances_and_wrong_ones_lower_them() -> None:
    text = list(range(100, 200))
    drafter = Drafter([*text, *text[:4]])
    first = drafter.chances(1)[0]
    for token in text[4:60]:
        drafter.push(token)
    assert drafter.chances(1)[0] > 0.95 > first
    for start in range(0, 80, 2):
        for token in (*text[start : start + 3], 999):
            drafter.push(token)
    for token in text[:3]:
        drafter.push(token)
    assert drafter.chances(1)[0] < 0.1


def test_chances_grow_with_the_length_of_the_match() -> None:
    text = list(range(100))
    drafter = Drafter([*text, *text[:3]])
    chances = drafter.chances(20)
    assert chances == sorted(chances)
    assert chances[0] < chances[-1] < 1


@given(st.lists(st.integers(0, 3), max_size=80), st.lists(st.integers(0, 3), max_size=40))
def test_a_guess_is_always_what_once_followed_the_last_three_tokens(prompt: list[int], answer: list[int]) -> None:
    drafter = Drafter(prompt)
    for token in answer:
        drafter.push(token)
    tokens = prompt + answer
    followers = [tokens[at] for at in range(3, len(tokens)) if tokens[at - 3 : at] == tokens[-3:]]
    guesses = drafter.guesses(1)
    assert guesses[0] in followers if followers and len(tokens) > 3 else guesses == []


def test_a_token_costs_microseconds_even_where_everything_matches() -> None:
    drafter = Drafter([5] * 20_000)
    started = time.process_time()
    for _ in range(2_000):
        drafter.push(5)
        drafter.guesses(8)
    assert (time.process_time() - started) / 2_000 < 200e-6


def test_guesses_pay_where_rows_are_cheap() -> None:
    assert worthwhile([0.9] * 8, tokens=1, step_ns=10, extra_ns=lambda count: count * 0.1) == 8
    assert worthwhile([0.5] * 8, tokens=1, step_ns=10, extra_ns=lambda count: count * 1) in (1, 2, 3)


@pytest.mark.parametrize("chance", [0.1, 0.5, 0.9])
def test_guesses_do_not_pay_where_a_row_costs_a_step(chance: float) -> None:
    assert worthwhile([chance] * 8, tokens=1, step_ns=10, extra_ns=lambda count: count * 10) == 0


def test_guesses_pay_less_beside_many_other_answers() -> None:
    assert worthwhile([0.6] * 8, tokens=1, step_ns=10, extra_ns=lambda count: count * 3) > 0
    assert worthwhile([0.96] * 8, tokens=16, step_ns=10 + 16 * 3, extra_ns=lambda count: count * 3) > 0
    assert worthwhile([0.6] * 8, tokens=16, step_ns=10 + 16 * 3, extra_ns=lambda count: count * 3) == 0
    assert worthwhile([0.96] * 8, tokens=16, step_ns=10 + 16 * 3, extra_ns=lambda count: count * 3, gain=1.5) == 0
    assert worthwhile([0.96] * 8, tokens=16, step_ns=10 + 16 * 3, extra_ns=lambda count: count * 1, gain=1.5) > 0


def test_what_guesses_cost_is_learned_from_the_first_step_that_had_some() -> None:
    cost = DraftCost()
    assert cost.extra_ns(4, row_ns=300) == 1200
    for _ in range(20):
        for count in (1, 4, 16):
            cost.observe(count, ns=10_000 + 5_000 + 600 * count, without_ns=10_000)
    assert cost.extra_ns(1, row_ns=300) == pytest.approx(5_600, rel=0.01)
    assert cost.extra_ns(24, row_ns=300) == pytest.approx(19_400, rel=0.01)


def test_a_single_guess_that_was_dear_does_not_make_many_of_them_dear() -> None:
    cost = DraftCost()
    cost.observe(1, ns=18_000, without_ns=10_000)
    assert cost.extra_ns(16, row_ns=600) < 16 * 4_000


def test_a_stalled_step_is_forgotten_in_the_end() -> None:
    cost = DraftCost()
    cost.observe(8, ns=900_000, without_ns=10_000)
    stalled = cost.extra_ns(8, row_ns=600)
    for _ in range(2_000):
        cost.doubt()
    assert cost.extra_ns(8, row_ns=600) < stalled / 40
    cost.observe(8, ns=20_000, without_ns=10_000)
    assert cost.extra_ns(8, row_ns=600) > 5_000
