"""Which tokens go into the next batch."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runner.chat.types import ChatRequest, Priority, TextPrompt
from runner.worker.scheduler import Scheduler, plan_step, share_rows
from runner.worker.sequence import BACKGROUND_DELAY_NS, Sequence


def make_sequence(
    name: str,
    tokens: int,
    *,
    generated: int = 0,
    computed: int | None = None,
    received_ns: int = 0,
    is_background: bool = False,
) -> Sequence:
    priority = Priority.BACKGROUND if is_background else Priority.INTERACTIVE
    request = ChatRequest(TextPrompt(""), priority=priority)
    sequence = Sequence(name, request, [1] * tokens, window=1000, seed=1, received_ns=received_ns)
    sequence.answer.generated = generated
    sequence.computed = (tokens - 1 if generated else 0) if computed is None else computed
    return sequence


def make_scheduler(*running: Sequence, max_sequences: int = 3) -> Scheduler:
    scheduler = Scheduler(max_sequences=max_sequences, max_rows=16)
    for sequence in running:
        scheduler.add(sequence)
        scheduler.start(sequence)
    return scheduler


def names(sequences: list[Sequence]) -> list[str]:
    return [sequence.request_id for sequence in sequences]


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
    plan = plan_step([prompt, answer], max_rows=16, prefill_rows=8, now=0)
    assert [(item.sequence.request_id, item.count) for item in plan] == [("answer", 1), ("prompt", 8)]


def test_a_prompt_alone_gets_the_whole_step() -> None:
    plan = plan_step([make_sequence("prompt", 50)], max_rows=16, prefill_rows=8, now=0)
    assert [item.count for item in plan] == [16]


def test_a_short_prompt_does_not_wait_for_a_long_one() -> None:
    plan = plan_step([make_sequence("long", 5000), make_sequence("short", 3)], max_rows=16, prefill_rows=8, now=0)
    assert {item.sequence.request_id: item.count for item in plan} == {"short": 3, "long": 13}


def test_a_prompt_stops_where_its_state_is_wanted() -> None:
    prompt = make_sequence("prompt", 50, computed=3)
    prompt.stops = [3, 10, 20]
    assert [item.count for item in plan_step([prompt], max_rows=16, prefill_rows=8, now=0)] == [7]


def test_background_prompts_get_what_the_others_leave() -> None:
    background = make_sequence("background", 50, is_background=True)
    plan = plan_step([background, make_sequence("prompt", 10)], max_rows=16, prefill_rows=8, now=0)
    assert {item.sequence.request_id: item.count for item in plan} == {"prompt": 10, "background": 6}
    plan = plan_step([background, make_sequence("prompt", 16)], max_rows=16, prefill_rows=8, now=0)
    assert {item.sequence.request_id: item.count for item in plan} == {"prompt": 16}


def test_background_prompts_that_waited_long_get_their_share() -> None:
    background = make_sequence("background", 50, is_background=True)
    plan = plan_step([background, make_sequence("prompt", 50)], max_rows=16, prefill_rows=8, now=BACKGROUND_DELAY_NS)
    assert {item.sequence.request_id: item.count for item in plan} == {"prompt": 8, "background": 8}


def test_those_that_came_first_start_first() -> None:
    scheduler = make_scheduler()
    for name, received in (("b", 2), ("a", 1), ("c", 3)):
        scheduler.add(make_sequence(name, 9, received_ns=received))
    assert names(scheduler.candidates()) == ["a", "b", "c"]


def test_interactive_requests_start_before_background_ones_for_a_while() -> None:
    scheduler = make_scheduler()
    scheduler.add(make_sequence("background", 9, is_background=True))
    scheduler.add(make_sequence("soon", 9, received_ns=BACKGROUND_DELAY_NS - 1))
    scheduler.add(make_sequence("late", 9, received_ns=BACKGROUND_DELAY_NS + 1))
    assert names(scheduler.candidates()) == ["soon", "background", "late"]


def test_no_more_run_than_may() -> None:
    scheduler = make_scheduler(*(make_sequence(name, 3) for name in "ab"))
    assert scheduler.has_place
    scheduler.add(make_sequence("c", 3))
    scheduler.start(scheduler.candidates()[0])
    assert not scheduler.has_place


def test_under_pressure_the_youngest_gives_way_and_comes_back_first() -> None:
    old, young = make_sequence("old", 9), make_sequence("young", 9)
    scheduler = make_scheduler(old, young)
    scheduler.add(make_sequence("queued", 9))
    assert scheduler.victim() is young
    scheduler.put_back(young)
    assert names(scheduler.candidates()) == ["young", "queued"]
    assert scheduler.victim() is None, "one that runs alone has nobody to give way to"


def test_under_pressure_a_paused_sequence_gives_way_before_a_younger_one() -> None:
    slow, young = make_sequence("slow", 9), make_sequence("young", 9)
    slow.paused = True
    assert make_scheduler(slow, young).victim() is slow


def test_under_pressure_background_gives_way_before_interactive() -> None:
    background = make_sequence("background", 9, is_background=True)
    assert make_scheduler(background, make_sequence("young", 9, received_ns=5)).victim() is background


def test_an_interactive_request_need_not_wait_for_a_background_one() -> None:
    background = make_sequence("background", 9, is_background=True)
    scheduler = make_scheduler(background, make_sequence("answer", 9))
    assert scheduler.gives_way_to(make_sequence("new", 9, received_ns=1)) is background
    assert scheduler.gives_way_to(make_sequence("new", 9, received_ns=1, is_background=True)) is None
    late = make_sequence("late", 9, received_ns=BACKGROUND_DELAY_NS + 1)
    assert scheduler.gives_way_to(late) is None, "it has waited long enough itself"


def test_removing_a_sequence_leaves_no_trace() -> None:
    running, waiting = make_sequence("a", 3), make_sequence("b", 3)
    scheduler = make_scheduler(running)
    scheduler.add(waiting)
    scheduler.remove(running)
    scheduler.remove(waiting)
    assert scheduler.is_idle


def test_a_paused_sequence_computes_nothing() -> None:
    sequence = make_sequence("a", 3)
    sequence.paused = True
    assert make_scheduler(sequence).plan_step(prefill_rows=8, now=0) == []


def test_after_a_failed_step_one_suspect_is_tried_alone() -> None:
    scheduler = make_scheduler(*(make_sequence(name, 3) for name in "abc"))
    for sequence in scheduler.running[1:]:
        sequence.faults = 1
    assert [item.sequence.request_id for item in scheduler.plan_step(prefill_rows=8, now=0)] == ["b"]
