"""Inputs that become vectors take turns beside the answers, and none is lost, mixed up or cut where it must not be."""

from __future__ import annotations

import array
import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.chat.types import ChatEvent, ChatRequest, Failed, Finished, Limits, TextPrompt
from runner.engine import EncodingChunk, EngineFault
from runner.errors import ContextLengthExceeded, InsufficientMemory, InvalidRequest, Unsupported
from runner.tasks import DetokenizeTask, EmbedTask, Encoded, RerankTask, Tokenized, TokenizeTask, Vectors
from runner.worker.encoding import EncodingJob, EncodingQueue
from runner.worker.reserve import Reserve
from runner.worker.sequence import Sequence as AnswerSequence
from runner.worker.tasks import prepare_task
from runner.worker.vectors import shaped
from tests.fake_engine import END, FakeEngine
from tests.runner.worker.test_loop import Driver


def drain(queue: EncodingQueue, most_rows: int | None = None) -> dict[str, list[ChatEvent]]:
    events: dict[str, list[ChatEvent]] = {}
    for _ in range(10_000):
        if not queue.is_due(0, beside=False):
            return events
        for name, event in queue.turn(most_rows)[1]:
            events.setdefault(name, []).append(event)
    raise AssertionError("the queue does not end")


def vectors(events: Sequence[ChatEvent]) -> dict[int, list[float]]:
    found: dict[int, list[float]] = {}
    for event in events:
        if isinstance(event, Vectors):
            for index, data in event.items:
                assert index not in found, "an input came twice"
                found[index] = list(array.array("f", data))
    return found


_jobs = st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=12), min_size=1, max_size=5)


@pytest.mark.parametrize("reads_whole", [False, True])
@given(lengths=_jobs, most_rows=st.none() | st.integers(1, 20))
def test_every_input_of_every_job_gets_its_own_vector(
    reads_whole: bool, lengths: list[list[int]], most_rows: int | None
) -> None:
    queue = EncodingQueue(FakeEngine(cells=64, reads_whole=reads_whole), Reserve(lambda _: None))
    for number, job in enumerate(lengths):
        inputs = [[number + 1] * length for length in job]
        assert queue.add(EncodingJob(str(number), inputs)) == []
    events = drain(queue, most_rows)
    for number, job in enumerate(lengths):
        told = events[str(number)]
        assert vectors(told) == {index: [length, length * (number + 1)] for index, length in enumerate(job)}
        assert told[-1] == Encoded(sum(job))
        assert sum(isinstance(event, Encoded) for event in told) == 1


def test_inputs_of_several_jobs_share_a_batch() -> None:
    engine = FakeEngine(cells=64)
    queue = EncodingQueue(engine, Reserve(lambda _: None))
    engine.prepare_encoding(16)
    for name in ("a", "b", "c"):
        queue.add(EncodingJob(name, [[1, 2], [3]]))
    drain(queue)
    assert len(engine.encoding_steps) == 1
    assert len(engine.encoding_steps[0]) == 6


def test_nothing_to_do_is_done_at_once() -> None:
    queue = EncodingQueue(FakeEngine(), Reserve(lambda _: None))
    assert queue.add(EncodingJob("empty", [])) == [("empty", Encoded(0))]
    assert len(queue) == 0


def test_a_vector_that_is_no_number_is_tried_alone_and_then_told_with_its_input() -> None:
    # As in a real model: what is in a batch with it is spoilt as well.
    together: list[int] = []

    def vector_of(tokens: Sequence[int]) -> list[float]:
        return [math.nan if 9 in tokens or 9 in together else 1.0]

    class Contagious(FakeEngine):
        def encode(self, chunks: Sequence[EncodingChunk]) -> list[array.array[float] | None]:
            together[:] = [token for chunk in chunks for token in chunk.tokens]
            return super().encode(chunks)

    engine = Contagious(cells=64, vector_of=vector_of)
    queue = EncodingQueue(engine, Reserve(lambda _: None))
    engine.prepare_encoding(16)
    queue.add(EncodingJob("good", [[1], [2, 3]]))
    queue.add(EncodingJob("bad", [[4], [5, 9]]))
    events = drain(queue)
    assert sorted(vectors(events["good"])) == [0, 1]
    [*_, failure] = events["bad"]
    assert isinstance(failure, Failed)
    assert (failure.code, failure.facts) == ("model_invalid", {"index": 1})
    assert [[list(chunk.tokens) for chunk in step] for step in engine.encoding_steps[1:]] == [
        [[1]],
        [[2, 3]],
        [[4]],
        [[5, 9]],
    ]


def test_a_batch_that_fails_ends_only_the_job_at_fault() -> None:
    class Failing(FakeEngine):
        def encode(self, chunks: Sequence[EncodingChunk]) -> list[array.array[float] | None]:
            if any(9 in chunk.tokens for chunk in chunks):
                raise EngineFault("told to fail")
            return super().encode(chunks)

    queue = EncodingQueue(Failing(cells=64), Reserve(lambda _: None))
    queue.engine.prepare_encoding(16)
    for name, tokens in (("a", [1]), ("bad", [9]), ("b", [2])):
        queue.add(EncodingJob(name, [tokens]))
    events = drain(queue)
    assert isinstance(events["bad"][-1], Failed)
    assert [isinstance(events[name][-1], Encoded) for name in ("a", "b")] == [True, True]


def test_a_job_without_memory_for_its_inputs_ends_and_the_next_goes_on() -> None:
    class Small(FakeEngine):
        def prepare_encoding(self, tokens: int) -> None:
            if tokens > 8:
                raise InsufficientMemory("too much")
            super().prepare_encoding(tokens)

    queue = EncodingQueue(Small(cells=64), Reserve(lambda _: None))
    queue.add(EncodingJob("large", [[1] * 20]))
    queue.add(EncodingJob("small", [[1] * 4]))
    events = drain(queue)
    assert [type(events[name][-1]) for name in ("large", "small")] == [Failed, Encoded]


@given(_jobs, st.integers(0, 20))
def test_a_cancelled_job_is_gone_and_the_others_end(lengths: list[list[int]], turns: int) -> None:
    queue = EncodingQueue(FakeEngine(cells=64), Reserve(lambda _: None))
    for number, job in enumerate(lengths):
        queue.add(EncodingJob(str(number), [[1] * length for length in job]))
    early = [queue.turn(5) for _ in range(turns) if queue.is_due(0, beside=False)]
    ended = {name for _, events in early for name, event in events if isinstance(event, Encoded)}
    queue.cancel("0")
    later = drain(queue)
    assert "0" not in later
    assert ended | later.keys() | {"0"} >= {str(number) for number in range(len(lengths))}


def test_beside_answers_a_turn_is_short_and_answers_have_their_time() -> None:
    queue = EncodingQueue(FakeEngine(cells=64), Reserve(lambda _: None))
    queue.add(EncodingJob("long", [[1] * 40]))
    rows, _ = queue.turn(4)
    assert rows == 4
    queue.turn_took(1000, 2000)
    assert not queue.is_due(4999, beside=True)
    assert queue.is_due(4999, beside=False)
    assert queue.is_due(5000, beside=True)


def test_the_loop_computes_vectors_while_it_answers() -> None:
    engine = FakeEngine(cells=64, step_ns=lambda _rows, _cells: 1_000_000)
    driver = Driver(engine)
    request = ChatRequest(TextPrompt("abc"), limits=Limits(num_predict=40))
    driver.post(AnswerSequence("answer", request, [1, 2, 3], window=64, seed=1, received_ns=0))
    driver.post(EncodingJob("vectors", [[1] * 12, [2] * 3]))
    with driver.running():
        while not isinstance(driver.events.get("answer", [None])[-1], Finished):
            driver.receive()
        while not isinstance(driver.events.get("vectors", [None])[-1], Encoded):
            driver.receive()
        driver.wait_until_idle()
    assert vectors(driver.events["vectors"]) == {0: [12, 12], 1: [3, 6]}
    assert driver.text("answer") == engine.answer([1, 2, 3], 40)


def test_texts_become_inputs_with_what_the_model_wants_around_them() -> None:
    engine = FakeEngine(cells=16)
    job = prepare_task("r", EmbedTask(("abc", (1, 2))), engine)
    assert isinstance(job, EncodingJob)
    assert [list(tokens) for tokens in job.inputs] == [[0, 1, 2, END], [1, 2]]


def test_an_input_that_is_too_long_is_refused_or_keeps_its_end_mark() -> None:
    engine = FakeEngine(cells=16)
    with pytest.raises(ContextLengthExceeded) as refused:
        prepare_task("r", EmbedTask(("a" * 16, "b")), engine)
    assert refused.value.facts == {"prompt_tokens": 17, "context_length": 16, "index": 0}
    job = prepare_task("r", EmbedTask(("b", "a" * 40), truncate=True, num_ctx=8), engine)
    assert isinstance(job, EncodingJob)
    assert list(job.inputs[1]) == [0] * 7 + [END]
    [told] = job.shortened
    assert (told.index, told.original, told.kept) == (1, 41, 8)


@pytest.mark.parametrize("token", [-1, END + 1, 2**40])
def test_tokens_of_no_vocabulary_never_reach_the_engine(token: int) -> None:
    engine = FakeEngine()
    for task in (EmbedTask(((1, token),)), DetokenizeTask((1, token))):
        with pytest.raises(InvalidRequest, match=f"is {token}; this model's vocabulary has {END + 1} tokens"):
            prepare_task("r", task, engine)


def test_dimensions_beyond_those_of_the_model_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="dimensions is 3, and this model's embeddings have 2"):
        prepare_task("r", EmbedTask(("a",), dimensions=3), FakeEngine())


def test_only_a_model_that_scores_reranks() -> None:
    with pytest.raises(Unsupported, match="no head that scores documents"):
        prepare_task("r", RerankTask("a", ("b",)), FakeEngine())


def test_tokens_are_told_without_the_engine_thread() -> None:
    assert prepare_task("r", TokenizeTask("ab"), FakeEngine()) == Tokenized((0, 1))
    assert prepare_task("r", TokenizeTask("ab", add_special=True), FakeEngine()) == Tokenized((0, 1, END))


@given(
    st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=20),
    st.none() | st.integers(1, 20),
    st.booleans(),
)
def test_a_shaped_vector_is_the_first_numbers_made_one_long(
    numbers: list[float], dimensions: int | None, normalize: bool
) -> None:
    data = shaped(array.array("f", numbers), dimensions=dimensions, normalize=normalize)
    assert data is not None
    found = list(array.array("f", data))
    kept = numbers[:dimensions]
    assert len(found) == len(kept)
    length = math.hypot(*kept)
    if not normalize or length == 0:
        assert found == kept
    elif length > 1e-30:
        assert math.isclose(math.hypot(*found), 1, rel_tol=1e-5)
        assert all(
            math.isclose(one * length, other, rel_tol=1e-4, abs_tol=length * 1e-6)
            for one, other in zip(found, kept, strict=True)
        )


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_never_shaped(bad: float) -> None:
    assert shaped(array.array("f", [1.0, bad]), dimensions=1, normalize=True) is None
