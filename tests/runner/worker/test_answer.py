"""Tokens of an answer with their log-probabilities, and what ends it."""

from __future__ import annotations

import pytest

from runner.chat.types import ChatEvent, ChatRequest, FinishReason, Limits, TextDelta, TextPrompt
from runner.engine import SamplerPlan, TokenScore
from runner.sampling import SamplingParams
from runner.worker.answer import Answer
from runner.worker.echo import Echo
from tests.fake_engine import FakeSampler

PIECES = [b"Hello", b" wo", b"rld", b"\xf0\x9f", b"\x99\x82", b"!", b"</s>"]
END = 6


class Vocabulary:
    """Some tokens, two of which are halves of a character; the last one ends answers."""

    def token_bytes(self, token: int) -> bytes:
        return b"" if token == END else PIECES[token]

    def written(self, token: int) -> bytes:
        return PIECES[token]

    def ends_generation(self, token: int) -> bool:
        return token == END


def run(tokens: list[int], *, stop: tuple[str, ...] = (), limit: int = -1) -> tuple[Answer, list[TextDelta]]:
    request = ChatRequest(TextPrompt("x"), stop=stop, limits=Limits(num_predict=limit), logprobs=1)
    answer = Answer(request, window=100)
    sampler = FakeSampler(SamplerPlan(SamplingParams(), 1))
    events: list[ChatEvent] = []
    for number, token in enumerate(tokens):
        sampler.score = TokenScore(token, -float(number), ((END, -0.5),))
        events += answer.accept(token, Vocabulary(), sampler)
        if answer.ended:
            break
    events += answer.finish()
    deltas = [event for event in events if isinstance(event, TextDelta)]
    assert len(deltas) == len(events)
    return answer, deltas


def told(deltas: list[TextDelta]) -> list[bytes]:
    return [token.data for delta in deltas for token in delta.tokens]


def test_a_token_comes_with_the_text_in_which_it_begins() -> None:
    _, deltas = run([0, 1, 2, END])
    assert [(delta.text, told([delta])) for delta in deltas] == [
        ("Hello", [b"Hello"]),
        (" wo", [b" wo"]),
        ("rld", [b"rld"]),
    ]
    assert deltas[1].tokens[0].logprob == -1.0
    assert deltas[1].tokens[0].alternatives == ((b"</s>", -0.5),)


def test_the_halves_of_a_character_come_with_the_whole_one() -> None:
    _, deltas = run([0, 3, 4, 5, END])
    assert [(delta.text, told([delta])) for delta in deltas] == [
        ("Hello", [b"Hello"]),
        ("🙂", [b"\xf0\x9f", b"\x99\x82"]),
        ("!", [b"!"]),
    ]


@pytest.mark.parametrize(
    ("stop", "tokens"), [("rld", [b"Hello", b" wo"]), ("orld", [b"Hello", b" wo"]), (" w", [b"Hello"])]
)
def test_what_a_stop_string_cuts_off_is_not_told(stop: str, tokens: list[bytes]) -> None:
    answer, deltas = run([0, 1, 2, 5], stop=(stop,))
    assert answer.ended is FinishReason.STOP
    assert told(deltas) == tokens
    assert "".join(delta.text for delta in deltas) == "Hello world!".partition(stop)[0]


def test_what_was_held_back_for_a_stop_string_comes_in_the_end() -> None:
    answer, deltas = run([0, 1, 2], stop=("world peace",), limit=3)
    assert answer.ended is FinishReason.LENGTH
    assert "".join(delta.text for delta in deltas) == "Hello world"
    assert told(deltas) == [b"Hello", b" wo", b"rld"]


def test_an_answer_that_its_constraint_completes_ends_there() -> None:
    answer = Answer(ChatRequest(TextPrompt("x")), window=100)
    sampler = FakeSampler(SamplerPlan(SamplingParams(), 1))
    sampler.is_complete = True
    assert answer.accept(0, Vocabulary(), sampler) == (TextDelta("Hello"),)
    assert answer.ended is FinishReason.STOP


def test_an_answer_that_cannot_go_on_fails_and_says_why() -> None:
    answer = Answer(ChatRequest(TextPrompt("x")), window=100)
    sampler = FakeSampler(SamplerPlan(SamplingParams(), 1))
    sampler.failure = "it is too complex"
    assert list(answer.accept(0, Vocabulary(), sampler)) == []
    assert answer.failed is not None
    assert answer.failed.code == "constraint_invalid"
    assert "too complex" in answer.failed.message


def test_a_prompt_is_scored_in_pieces_and_told_before_the_answer() -> None:
    echo = Echo("Hello world", [0, 1, 2], 1, Vocabulary())
    for start, count in ((0, 2), (2, 1)):
        scoring = echo.scoring(start, count)
        for place, target in enumerate(scoring.targets if scoring else ()):
            assert scoring is not None
            scoring.scores[start + place + 1] = TokenScore(target, -2.0, ())
    request = ChatRequest(TextPrompt("Hello world"), limits=Limits(num_predict=0), echo=True, logprobs=1)
    answer = Answer(request, 100, None, echo)
    assert not answer.ended, "the prompt has to be computed"
    [delta] = answer.accept(5, Vocabulary(), FakeSampler(SamplerPlan(SamplingParams(), 1)))
    assert isinstance(delta, TextDelta)
    assert delta.text == "Hello world"
    assert [(token.data, token.logprob) for token in delta.tokens] == [(b"Hello", None), (b" wo", -2.0), (b"rld", -2.0)]
    assert (answer.ended, answer.generated) == (FinishReason.LENGTH, 0)
