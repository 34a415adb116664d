"""Steps with the guesses of a draft model, beside those that are found in the text."""

from __future__ import annotations

from collections.abc import Sequence as ReadOnlySequence
from dataclasses import dataclass

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.chat.types import Finished, Usage
from runner.loaded_model import MemoryKind
from runner.messages import Grow
from runner.worker.commands import CancelSequence
from runner.worker.sequence import Sequence
from tests.fake_draft import FakeDraft
from tests.fake_engine import FakeEngine
from tests.runner.worker.test_draft_steps import PROMPT, cheap_rows, copying, dear_rows, sequence
from tests.runner.worker.test_loop import Driver


def plain(
    *, cells: int = 2000, longest: int = 0, memory: MemoryKind = MemoryKind.CELLS, is_dear: bool = False
) -> FakeEngine:
    """An engine whose text repeats nothing, so that nothing is found in it."""
    step_ns = dear_rows if is_dear else cheap_rows
    return FakeEngine(cells=cells, max_sequences=4, max_rows=64, memory=memory, step_ns=step_ns, longest=longest)


def drafted(name: str, prompt: ReadOnlySequence[int] = PROMPT, *, count: int = 200, **options: object) -> Sequence:
    one = sequence(name, prompt, count=count, **options)  # type: ignore[arg-type]
    limits = msgspec.structs.replace(one.request.limits, uses_draft_model=True)
    one.request = msgspec.structs.replace(one.request, limits=limits)
    return one


@dataclass
class Run:
    """What came of requests that ran together."""

    driver: Driver
    usage: list[Usage]


def run(engine: FakeEngine, *sequences: Sequence) -> Run:
    driver = Driver(engine)
    driver.post(*sequences)
    driver.run_to_end(*(one.request_id for one in sequences))
    ends = [driver.wait_for(one.request_id) for one in sequences]
    return Run(driver, [end.usage for end in ends if isinstance(end, Finished)])


def test_text_is_the_same_in_fewer_steps_and_the_answer_tells_whose_guesses_were_right() -> None:
    engine = plain()
    engine.draft = draft = FakeDraft(engine)
    done = run(engine, drafted("a"))
    assert done.driver.text("a") == engine.answer(PROMPT, 200)
    assert len(engine.steps) < 80
    [usage] = done.usage
    assert usage.drafted_tokens == usage.draft_model_tokens > 100
    assert usage.accepted_tokens == usage.draft_model_accepted > 0.7 * usage.drafted_tokens
    assert not draft.cells


def test_a_draft_model_that_is_mostly_wrong_is_soon_left_alone() -> None:
    engine = plain()
    engine.draft = draft = FakeDraft(engine, wrong_of_ten=9)
    driver = Driver(engine)
    with driver.running():
        driver.post(drafted("a", count=600))
        driver.wait_for_all("a")
        asked = sum(chunk.is_asked for step in draft.steps for chunk in step)
        before = len(draft.steps)
        driver.post(drafted("b", PROMPT[3:], count=20))
        driver.wait_for_all("b")
    assert driver.text("a") == engine.answer(PROMPT, 600)
    assert 0 < asked < 60
    assert len(draft.steps) - before < 4, "what was learned is not forgotten with the next request"


@pytest.mark.parametrize("reason", ["dear rows", "dear guesses"])
def test_guesses_that_are_right_but_cost_more_than_they_give_are_not_made_for_long(reason: str) -> None:
    engine = plain(is_dear=reason == "dear rows")
    engine.draft = draft = FakeDraft(engine, wrong_of_ten=0, step_ns=150_000)
    done = run(engine, drafted("a", count=600))
    assert done.driver.text("a") == engine.answer(PROMPT, 600)
    assert len(draft.steps) < 60


def test_a_draft_model_that_has_become_quick_again_is_found_out() -> None:
    engine = plain()
    engine.draft = draft = FakeDraft(engine, wrong_of_ten=0, step_ns=400_000)
    driver = Driver(engine)
    with driver.running():
        driver.post(drafted("a"))
        driver.wait_for_all("a")
        draft.step_ns = 5_000
        names = [f"later {number}" for number in range(12)]
        for name in names:
            driver.post(drafted(name, count=300))
            driver.wait_for_all(name)
    end = driver.wait_for(names[-1])
    assert isinstance(end, Finished) and end.usage.draft_model_accepted > 100


@pytest.mark.parametrize("reason", ["not wanted", "none asked for", "states", "deterministic", "no room", "short"])
def test_nothing_is_asked_of_it_where_it_is_not_wanted_or_cannot_help(reason: str) -> None:
    engine = plain(memory=MemoryKind.STATES if reason == "states" else MemoryKind.CELLS)
    engine.draft = draft = FakeDraft(
        engine, room=0 if reason == "no room" else 2000, longest=0 if reason == "no room" else 2000
    )
    one = drafted("a", draft=0 if reason == "none asked for" else None, deterministic=reason == "deterministic")
    if reason == "not wanted":
        one = sequence("a", PROMPT, count=200)
    if reason == "short":
        one = drafted("a", count=1)
    assert run(engine, one).driver.text("a") == engine.answer(PROMPT, 1 if reason == "short" else 200)
    assert draft.steps == []


def test_what_is_found_in_the_text_goes_first() -> None:
    engine = copying()
    engine.draft = FakeDraft(engine)
    done = run(engine, drafted("a"))
    assert done.driver.text("a") == engine.answer(PROMPT, 200)
    [usage] = done.usage
    assert usage.drafted_tokens > usage.draft_model_tokens > 0
    assert usage.accepted_tokens > usage.draft_model_accepted


def test_several_answers_are_guessed_for_in_one_step_and_share_what_they_begin_with() -> None:
    engine = plain()
    engine.draft = draft = FakeDraft(engine)
    names = ["a", "b", "c", "d"]
    done = run(engine, *(drafted(name, [*PROMPT, number]) for number, name in enumerate(names)))
    for number, name in enumerate(names):
        assert done.driver.text(name) == engine.answer([*PROMPT, number], 200)
    assert max(len(step) for step in draft.steps) > 1
    read = sum(len(chunk.tokens) for step in draft.steps[:8] for chunk in step)
    assert read < 2 * len(PROMPT) + 8 * 8, "a beginning that all have is read once"


def test_what_is_read_for_one_scope_is_not_shared_with_another() -> None:
    def read(scopes: str) -> int:
        engine = plain()
        engine.draft = draft = FakeDraft(engine)
        asked = [drafted(f"{number}", [*PROMPT, number]) for number in range(4)]
        for one, scope in zip(asked, scopes, strict=True):
            one.request = msgspec.structs.replace(one.request, cache_scope=scope)
        run(engine, *asked)
        chunks = [chunk for step in draft.steps for chunk in step]
        return sum(max(min(len(PROMPT) - chunk.start, len(chunk.tokens)), 0) for chunk in chunks)

    for scopes, readers in (("aaaa", 1), ("abab", 2), ("abcd", 4)):
        assert readers * len(PROMPT) <= read(scopes) < (readers + 0.5) * len(PROMPT)


def test_a_long_prompt_is_read_in_pieces_between_steps() -> None:
    engine = plain()
    engine.draft = draft = FakeDraft(engine)
    prompt = (PROMPT * 20)[:600]
    run(engine, drafted("a", prompt))
    first = next(number for number, step in enumerate(draft.steps) if any(chunk.is_asked for chunk in step))
    assert first >= 600 // draft.max_rows
    assert sum(len(chunk.tokens) for step in draft.steps[: first + 1] for chunk in step) >= 600


def test_a_draft_model_that_fails_is_asked_again_and_then_never_and_no_answer_fails() -> None:
    engine = plain()
    engine.draft = draft = FakeDraft(engine, failures=2)
    assert run(engine, drafted("a")).driver.text("a") == engine.answer(PROMPT, 200)
    assert draft.steps
    engine = plain()
    engine.draft = draft = FakeDraft(engine, failures=100)
    assert run(engine, drafted("a")).driver.text("a") == engine.answer(PROMPT, 200)
    assert draft.failures == 97


def test_a_token_that_the_draft_model_cannot_read_ends_its_guesses() -> None:
    engine = plain()
    engine.draft = draft = FakeDraft(engine, vocabulary=20)
    assert run(engine, drafted("a")).driver.text("a") == engine.answer(PROMPT, 200)
    assert draft.steps == []


def test_cells_are_given_back_when_a_request_is_cancelled() -> None:
    engine = plain()
    engine.draft = draft = FakeDraft(engine)
    driver = Driver(engine)
    with driver.running():
        driver.post(drafted("a", count=1500))
        driver.wait_for_text("a", 50)
        driver.post(CancelSequence("a"))
        driver.wait_until_idle()
    assert draft.steps and not draft.cells


def test_a_window_that_grows_has_a_draft_model_that_grows_with_it() -> None:
    engine = plain(cells=128, longest=1024)
    engine.draft = draft = FakeDraft(engine, room=128)
    driver = Driver(engine)
    with driver.running():
        driver.post(drafted("a", count=100))
        driver.wait_for_text("a", 20)
        driver.post(Grow(1024))
        driver.wait_for_all("a")
    assert driver.text("a") == engine.answer(PROMPT, 100)
    assert draft.room == 1024 and not draft.cells


def test_a_window_that_shifts_goes_on_shifting() -> None:
    engine = plain()
    engine.draft = FakeDraft(engine)
    done = run(engine, drafted("a", count=400, window=128, shift=True))
    assert len(done.driver.text("a")) == 400
    assert done.usage[0].draft_model_accepted > 50


@settings(max_examples=60, deadline=None)
@given(
    prompts=st.lists(st.integers(1, len(PROMPT)), min_size=1, max_size=5),
    counts=st.lists(st.integers(0, 60), min_size=5, max_size=5),
    drafts=st.lists(st.sampled_from([None, 0, 1, 3, 30]), min_size=5, max_size=5),
    wants=st.lists(st.booleans(), min_size=5, max_size=5),
    cells=st.integers(140, 400),
    room=st.integers(60, 400),
    wrong=st.integers(0, 5),
)
def test_whatever_runs_beside_it_every_text_is_as_without_guesses(
    prompts: list[int],
    counts: list[int],
    drafts: list[int | None],
    wants: list[bool],
    cells: int,
    room: int,
    wrong: int,
) -> None:
    engine = copying(cells=cells)
    engine.draft = draft = FakeDraft(engine, wrong_of_ten=wrong, room=room, longest=room)
    names = [str(number) for number in range(len(prompts))]
    sequences = [
        (drafted if wanted else sequence)(name, PROMPT[-length:], count=count, window=140, draft=most)
        for name, length, count, most, wanted in zip(names, prompts, counts, drafts, wants, strict=False)
    ]
    driver = run(engine, *sequences).driver
    for name, length, count in zip(names, prompts, counts, strict=False):
        assert driver.text(name) == engine.answer(PROMPT[-length:], count)
    assert not draft.cells
