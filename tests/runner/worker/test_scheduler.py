"""Which tokens go into the next batch."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runner.chat.types import ChatRequest, TextPrompt
from runner.worker.scheduler import Scheduler, plan_step, share_rows
from runner.worker.sequence import Sequence


def make_sequence(name: str, tokens: int, *, generated: int = 0, computed: int | None = None) -> Sequence:
    sequence = Sequence(name, ChatRequest(TextPrompt("")), [1] * tokens, window=1000, seed=1, received_ns=0)
    sequence.answer.generated = generated
    sequence.computed = (tokens - 1 if generated else 0) if computed is None else computed
    return sequence


def make_scheduler(cells: int = 100, max_sequences: int = 3) -> Scheduler:
    return Scheduler(cells=cells, max_sequences=max_sequences, max_rows=16, prefill_rows_while_decoding=8)


@given(st.lists(st.integers(1, 600), max_size=20), st.integers(0, 1000))
def test_rows_are_shared_without_waste_and_the_shortest_prompts_first(pending: list[int], room: int) -> None:
    shares = share_rows(pending, room)
    assert sum(shares) == min(room, sum(pending))
    assert all(0 <= share <= wanted for share, wanted in zip(shares, pending, strict=True))
    unfinished = [share for share, wanted in zip(shares, pending, strict=True) if share < wanted]
    assert max(unfinished, default=0) - min(unfinished, default=0) <= 1
    assert all(share <= max(unfinished, default=room) + 1 for share in shares)


def test_answers_in_progress_come_before_prompts() -> None:
    prompt, answer = make_sequence("prompt", 50), make_sequence("answer", 10, generated=3)
    plan = plan_step([prompt, answer], max_rows=16, prefill_rows_while_decoding=8)
    assert [(item.sequence.request_id, item.count) for item in plan] == [("answer", 1), ("prompt", 8)]


def test_a_prompt_alone_gets_the_whole_step() -> None:
    plan = plan_step([make_sequence("prompt", 50)], max_rows=16, prefill_rows_while_decoding=8)
    assert [item.count for item in plan] == [16]


def test_a_short_prompt_does_not_wait_for_a_long_one() -> None:
    plan = plan_step(
        [make_sequence("long", 5000), make_sequence("short", 3)], max_rows=16, prefill_rows_while_decoding=8
    )
    assert {item.sequence.request_id: item.count for item in plan} == {"short": 3, "long": 13}


def test_admission_counts_the_tokens_that_exist_and_not_those_that_may_come() -> None:
    scheduler = make_scheduler(cells=100)
    for name in ("a", "b"):
        scheduler.add(make_sequence(name, 40))
    scheduler.admit()
    assert [sequence.request_id for sequence in scheduler.running] == ["a", "b"]


def test_what_does_not_fit_waits_in_order() -> None:
    scheduler = make_scheduler(cells=100)
    for name, length in (("a", 60), ("b", 60), ("c", 5)):
        scheduler.add(make_sequence(name, length))
    scheduler.admit()
    assert [sequence.request_id for sequence in scheduler.running] == ["a"]
    assert [sequence.request_id for sequence in scheduler.waiting] == ["b", "c"]


def test_under_pressure_the_youngest_gives_way_and_comes_back_first() -> None:
    scheduler = make_scheduler(cells=20)
    old, young, queued = (make_sequence(name, 9) for name in ("old", "young", "queued"))
    for sequence in (old, young, queued):
        scheduler.add(sequence)
    scheduler.admit()
    old.tokens += [1, 1, 1]
    [preemption] = scheduler.make_room()
    assert preemption.sequence is young
    assert young.computed == 0
    assert young.sequence_id is None
    assert list(scheduler.waiting) == [young, queued]


def test_under_pressure_a_paused_sequence_gives_way_before_a_younger_one() -> None:
    scheduler = make_scheduler(cells=20)
    slow, young = make_sequence("slow", 9), make_sequence("young", 9)
    scheduler.add(slow)
    scheduler.add(young)
    scheduler.admit()
    slow.paused = True
    preemption = scheduler.give_way()
    assert preemption is not None
    assert preemption.sequence is slow


def test_an_engine_without_cells_gets_nothing_new_until_a_sequence_ends() -> None:
    scheduler = make_scheduler(cells=100)
    first, second = make_sequence("first", 9), make_sequence("second", 9)
    scheduler.add(first)
    scheduler.add(second)
    scheduler.admit()
    scheduler.give_way()
    scheduler.admit()
    assert scheduler.running == [first]
    assert scheduler.give_way() is None
    scheduler.remove(first)
    scheduler.admit()
    assert scheduler.running == [second]


def test_sequence_ids_are_distinct_and_used_again() -> None:
    scheduler = make_scheduler(max_sequences=2)
    sequences = [make_sequence(name, 3) for name in "abc"]
    for sequence in sequences:
        scheduler.add(sequence)
    scheduler.admit()
    assert [sequence.sequence_id for sequence in sequences] == [0, 1, None]
    assert scheduler.remove(sequences[0]) == 0
    scheduler.admit()
    assert sequences[2].sequence_id == 0


def test_removing_a_waiting_sequence_leaves_no_trace() -> None:
    scheduler = make_scheduler()
    sequence = make_sequence("a", 3)
    scheduler.add(sequence)
    assert scheduler.remove(sequence) is None
    assert scheduler.is_idle


def test_a_paused_sequence_computes_nothing() -> None:
    scheduler = make_scheduler()
    sequence = make_sequence("a", 3)
    scheduler.add(sequence)
    scheduler.admit()
    sequence.paused = True
    assert scheduler.plan_step() == []


def test_after_a_failed_step_one_suspect_is_tried_alone() -> None:
    scheduler = make_scheduler()
    for name in "abc":
        scheduler.add(make_sequence(name, 3))
    scheduler.admit()
    for sequence in scheduler.running[1:]:
        sequence.faults = 1
    assert [item.sequence.request_id for item in scheduler.plan_step()] == ["b"]
