"""Steps with guesses, with an engine whose text repeats itself."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence as ReadOnlySequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.chat.types import ChatRequest, Finished, FinishReason, Limits, TextPrompt
from runner.engine import Chunk
from runner.loaded_model import MemoryKind
from runner.worker.commands import CancelSequence
from runner.worker.sequence import Sequence
from tests.fake_engine import ALPHABET, FakeEngine
from tests.runner.worker.test_loop import Driver


def cheap_rows(rows: int, _cells: int) -> int:
    return 100_000 + 1_000 * rows


def dear_rows(rows: int, _cells: int) -> int:
    return 100_000 * rows


class CopyingEngine(FakeEngine):
    """Mostly goes on as it did after the same token before, and goes its own way at times."""

    def next_token(self, held: ReadOnlySequence[int]) -> int:
        token = super().next_token(held)
        if int.from_bytes(hashlib.blake2b(bytes(held), digest_size=2, salt=b"own").digest(), "big") % 10 == 0:
            return token
        return next((held[place] for place in range(len(held) - 1, 0, -1) if held[place - 1] == held[-1]), token)

    @property
    def drafted(self) -> int:
        return sum(chunk.drafted for step in self.steps for chunk in step)


def copying(
    *,
    cells: int = 2000,
    max_sequences: int = 4,
    ends_every: int = 0,
    memory: MemoryKind = MemoryKind.CELLS,
    rows_are_dear: bool = False,
    hidden_cells: int = 0,
) -> CopyingEngine:
    return CopyingEngine(
        cells=cells,
        max_sequences=max_sequences,
        max_rows=64,
        ends_every=ends_every,
        memory=memory,
        step_ns=dear_rows if rows_are_dear else cheap_rows,
        hidden_cells=hidden_cells,
    )


def sequence(
    name: str,
    prompt: ReadOnlySequence[int],
    *,
    count: int = 100,
    window: int = 2000,
    draft: int | None = None,
    stop: tuple[str, ...] = (),
    shift: bool = False,
    deterministic: bool = False,
) -> Sequence:
    limits = Limits(num_predict=count, num_draft=draft, shift=shift)
    request = ChatRequest(TextPrompt(""), limits=limits, stop=stop, deterministic=deterministic)
    return Sequence(name, request, list(prompt), window=window, seed=1, received_ns=0)


def letters(text: str) -> list[int]:
    return [ALPHABET.index(letter) for letter in text]


PROMPT = letters("the quick brown fox jumps over the lazy dog. the quick brown fox")


def test_text_is_the_same_in_fewer_steps() -> None:
    engine = copying()
    driver = Driver(engine)
    driver.post(sequence("a", PROMPT))
    driver.run_to_end("a")
    assert driver.text("a") == engine.answer(PROMPT, 100)
    assert len(engine.steps) < 60


def test_the_answer_says_how_many_guesses_were_right() -> None:
    engine = copying()
    driver = Driver(engine)
    driver.post(sequence("a", PROMPT))
    driver.run_to_end("a")
    end = driver.wait_for("a")
    assert isinstance(end, Finished)
    assert end.usage.drafted_tokens == engine.drafted
    assert end.usage.accepted_tokens == 100 - len([step for step in engine.steps if step[0].sampler])
    assert end.usage.completion_tokens == 100


@pytest.mark.parametrize("reason", ["asked", "dear", "states", "deterministic"])
def test_nothing_is_guessed_where_it_is_not_wanted_or_cannot_pay(reason: str) -> None:
    memory = MemoryKind.STATES if reason == "states" else MemoryKind.CELLS
    engine = copying(rows_are_dear=reason == "dear", memory=memory)
    driver = Driver(engine)
    draft = 0 if reason == "asked" else None
    driver.post(sequence("a", PROMPT, draft=draft, deterministic=reason == "deterministic"))
    driver.run_to_end("a")
    assert driver.text("a") == engine.answer(PROMPT, 100)
    assert engine.drafted == 0


def test_no_more_is_guessed_in_a_step_than_was_asked_for() -> None:
    engine = copying()
    driver = Driver(engine)
    driver.post(sequence("a", PROMPT, draft=2))
    driver.run_to_end("a")
    assert max(chunk.drafted for step in engine.steps for chunk in step) == 2


def test_an_answer_ends_where_it_would_without_guesses() -> None:
    plain = copying().answer(PROMPT, 100)
    stop = plain[40:44]
    engine = copying()
    driver = Driver(engine)
    driver.post(sequence("a", PROMPT, stop=(stop,)))
    driver.run_to_end("a")
    assert driver.text("a") == plain[: plain.index(stop)]
    end = driver.wait_for("a")
    assert isinstance(end, Finished) and end.reason is FinishReason.STOP
    assert end.usage.completion_tokens == plain.index(stop) + 4


def test_a_step_that_has_no_room_is_tried_again_without_guesses() -> None:
    engine = copying(cells=120, hidden_cells=10)
    driver = Driver(engine)
    driver.post(sequence("a", PROMPT, count=110 - len(PROMPT), window=120))
    driver.run_to_end("a")
    assert driver.text("a") == engine.answer(PROMPT, 110 - len(PROMPT))


def test_a_request_can_be_cancelled_between_steps_with_guesses() -> None:
    engine = copying()
    driver = Driver(engine)
    with driver.running():
        driver.post(sequence("a", PROMPT, count=1500), sequence("b", PROMPT[5:]))
        driver.wait_for_text("a", 50)
        driver.post(CancelSequence("a"))
        driver.wait_for_all("b")
    assert driver.text("b") == engine.answer(PROMPT[5:], 100)
    assert not engine.cells


def test_a_window_that_shifts_goes_on_shifting() -> None:
    engine = copying()
    driver = Driver(engine)
    driver.post(sequence("a", PROMPT, count=300, window=96, shift=True))
    driver.run_to_end("a")
    assert len(driver.text("a")) == 300
    assert engine.drafted > 0


@settings(max_examples=60, deadline=None)
@given(
    prompts=st.lists(st.integers(1, len(PROMPT)), min_size=1, max_size=5),
    counts=st.lists(st.integers(0, 60), min_size=5, max_size=5),
    drafts=st.lists(st.sampled_from([None, 0, 1, 3, 30]), min_size=5, max_size=5),
    cells=st.integers(140, 500),
    ends_every=st.sampled_from([0, 40]),
)
def test_whatever_runs_beside_it_every_text_is_as_without_guesses(
    prompts: list[int], counts: list[int], drafts: list[int | None], cells: int, ends_every: int
) -> None:
    engine = copying(cells=cells, ends_every=ends_every)
    driver = Driver(engine)
    names = [str(number) for number in range(len(prompts))]
    for name, length, count, draft in zip(names, prompts, counts, drafts, strict=False):
        driver.post(sequence(name, PROMPT[-length:], count=count, window=140, draft=draft))
    driver.run_to_end(*names)
    for name, length, count in zip(names, prompts, counts, strict=False):
        assert driver.text(name) == engine.answer(PROMPT[-length:], count)


def test_guesses_of_several_answers_share_a_bounded_number_of_rows() -> None:
    engine = copying()
    driver = Driver(engine)
    names = [str(number) for number in range(4)]
    driver.post(*(sequence(name, PROMPT[int(name) :]) for name in names))
    driver.run_to_end(*names)

    def drafted(step: ReadOnlySequence[Chunk]) -> int:
        return sum(chunk.drafted for chunk in step)

    assert 0 < max(map(drafted, engine.steps)) <= 32
    for name in names:
        assert driver.text(name) == engine.answer(PROMPT[int(name) :], 100)


class RepeatingEngine(CopyingEngine):
    """Says the same again and again."""

    def next_token(self, held: ReadOnlySequence[int]) -> int:
        return held[-4] if len(held) > 3 else 0


@pytest.mark.parametrize(("answers", "pays"), [(1, True), (8, False)])
def test_answers_do_not_wait_for_guesses_that_gain_hardly_more_than_their_own_rows(answers: int, pays: bool) -> None:
    engine = RepeatingEngine(
        cells=4000, max_sequences=8, max_rows=64, step_ns=lambda rows, _cells: 6_000_000 + 4_000_000 * rows
    )
    driver = Driver(engine)
    names = [str(number) for number in range(answers)]
    driver.post(*(sequence(name, PROMPT[int(name) :]) for name in names))
    driver.run_to_end(*names)
    # Whose answer is the last one has nobody beside it.
    drafted = [sum(chunk.drafted for chunk in step) for step in engine.steps if len(step) == answers]
    assert any(drafted) == pays
