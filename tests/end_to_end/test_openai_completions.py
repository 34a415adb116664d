"""Text completions, several answers and log-probabilities, through the official OpenAI client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.end_to_end.conftest import MODEL, TIMEOUT, Daemon

PROMPT = "The capital of France is"


@pytest.fixture
def client(shared_daemon: Daemon) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{shared_daemon.url}/v1", api_key="none", max_retries=0, timeout=TIMEOUT) as made:
        yield made


def test_a_text_is_gone_on_with(client: openai.OpenAI) -> None:
    asked: Any = {"model": MODEL, "prompt": PROMPT, "temperature": 0, "max_tokens": 4}
    asked["extra_body"] = {"deterministic": True}
    answer = client.completions.create(**asked)
    assert "Paris" in answer.choices[0].text
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 4
    chunks = list(client.completions.create(**asked, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == answer.choices[0].text
    assert chunks[-1].choices[0].finish_reason == "length"


def test_echo_tells_how_likely_the_prompt_was(client: openai.OpenAI) -> None:
    told = client.completions.create(
        model=MODEL, prompt=PROMPT + " Paris.", temperature=0, max_tokens=3, echo=True, logprobs=2
    ).choices[0]
    assert told.text.startswith(PROMPT + " Paris.")
    logprobs = told.logprobs
    assert logprobs is not None
    assert logprobs.tokens and logprobs.token_logprobs and logprobs.top_logprobs and logprobs.text_offset
    assert "".join(logprobs.tokens) == told.text
    first: object = logprobs.token_logprobs[0]
    assert first is None, "nothing stands before it"
    assert all(one < 0 for one in logprobs.token_logprobs[1:])
    for token, offset in zip(logprobs.tokens, logprobs.text_offset, strict=True):
        assert told.text[offset:].startswith(token)
    for token, logprob, told_of in zip(
        logprobs.tokens[1:], logprobs.token_logprobs[1:], logprobs.top_logprobs[1:], strict=True
    ):
        assert told_of[token] == logprob, "the token that was taken is among them"
        assert len(told_of) in (2, 3)
    # What it would have said itself is what it finds likeliest.
    place = logprobs.tokens.index(" Paris")
    assert logprobs.token_logprobs[place] == max(logprobs.top_logprobs[place].values())


def test_a_prompt_is_scored_without_an_answer(client: openai.OpenAI) -> None:
    text = "One two three four five six seven eight nine ten. " * 12
    first = client.completions.create(model=MODEL, prompt=text, max_tokens=0, echo=True, logprobs=0)
    assert first.choices[0].text == text
    assert first.usage is not None
    assert first.usage.completion_tokens == 0
    again = client.completions.create(model=MODEL, prompt=text, max_tokens=0, echo=True, logprobs=0)
    one, two = first.choices[0].logprobs, again.choices[0].logprobs
    assert one is not None and two is not None
    assert one.token_logprobs is not None and two.token_logprobs is not None
    assert len(one.token_logprobs) == first.usage.prompt_tokens
    assert one.token_logprobs[1:] == pytest.approx(two.token_logprobs[1:], abs=1.0)


def test_echo_without_logprobs_is_the_prompt_and_the_answer(client: openai.OpenAI) -> None:
    asked: Any = {"model": MODEL, "prompt": PROMPT, "temperature": 0, "max_tokens": 4}
    asked["extra_body"] = {"deterministic": True}
    answer = client.completions.create(**asked, echo=True)
    alone = client.completions.create(**asked)
    assert answer.choices[0].text == PROMPT + alone.choices[0].text
    nothing = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=0, echo=True)
    assert nothing.choices[0].text == PROMPT


def test_every_prompt_gets_its_answers_in_order(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model=MODEL, prompt=[PROMPT, "One, two, three,"], n=2, seed=3, temperature=1, max_tokens=5
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    again = client.completions.create(
        model=MODEL, prompt=[PROMPT, "One, two, three,"], n=2, seed=3, temperature=1, max_tokens=5, stream=True
    )
    indexes = {chunk.choices[0].index for chunk in again}
    assert indexes == {0, 1, 2, 3}
    assert answer.usage is not None
    assert 5 < answer.usage.completion_tokens <= 20


def test_tokens_are_a_prompt_too(client: openai.OpenAI, shared_daemon: Daemon) -> None:
    body = {"model": MODEL, "prompt": PROMPT, "raw": False, "stream": False, "options": {"num_predict": 1}}
    context = shared_daemon.client.post("/api/generate", json=body).json()["context"]
    answer = client.completions.create(model=MODEL, prompt=[context], max_tokens=2, echo=True)
    assert PROMPT in answer.choices[0].text
    with pytest.raises(openai.BadRequestError) as foreign:
        client.completions.create(model=MODEL, prompt=[10**6], max_tokens=2)
    assert foreign.value.code == "invalid_request"


def test_the_best_of_several_is_given(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model=MODEL, prompt=PROMPT, n=1, best_of=4, seed=1, temperature=1.5, max_tokens=8
    )
    assert len(answer.choices) == 1
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 8
    with pytest.raises(openai.BadRequestError):
        client.completions.create(model=MODEL, prompt=PROMPT, n=3, best_of=2)
    with pytest.raises(openai.BadRequestError):
        client.completions.create(model=MODEL, prompt=PROMPT, best_of=2, stream=True)


def test_a_model_without_marks_for_it_inserts_nothing(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(model=MODEL, prompt="def add(a, b):", suffix="return c")
    assert refused.value.code == "unsupported"


def test_several_chat_answers_share_a_prompt_and_come_again_with_the_seed(client: openai.OpenAI) -> None:
    def ask(*, stream: bool) -> list[str]:
        wanted: dict[str, Any] = {
            "model": MODEL,
            "messages": [{"role": "user", "content": "Tell me of the sea."}],
            "n": 3,
            "seed": 11,
            "temperature": 1.2,
            "max_tokens": 12,
        }
        if not stream:
            whole = client.chat.completions.create(**wanted)
            assert 12 < whole.usage.completion_tokens <= 36
            return [choice.message.content for choice in whole.choices]
        texts = ["", "", ""]
        for chunk in client.chat.completions.create(**wanted, stream=True):
            texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
        return texts

    first = ask(stream=False)
    assert len(set(first)) == 3
    assert len(ask(stream=True)) == 3


def test_chat_logprobs_are_those_of_the_text(client: openai.OpenAI) -> None:
    def ask() -> Any:
        return client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "Say: naïve 🙂"}],
            temperature=0,
            max_tokens=16,
            logprobs=True,
            top_logprobs=3,
        )

    answer = ask().choices[0]
    data = b"".join(bytes(token.bytes) for token in answer.logprobs.content)
    assert data.decode("utf-8", "replace") == answer.message.content
    for token in answer.logprobs.content:
        alternatives = [one.logprob for one in token.top_logprobs]
        assert len(alternatives) == 3
        assert alternatives == sorted(alternatives, reverse=True)
        assert token.logprob == alternatives[0]
    stream = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Say: naïve 🙂"}],
        temperature=0,
        max_tokens=16,
        logprobs=True,
        stream=True,
    )
    choices = [chunk.choices[0] for chunk in stream]
    said = [token for choice in choices if choice.logprobs for token in choice.logprobs.content or ()]
    text = "".join(choice.delta.content or "" for choice in choices)
    assert b"".join(bytes(token.bytes or []) for token in said).decode("utf-8", "replace") == text


def test_a_biased_token_comes_or_does_not(client: openai.OpenAI, shared_daemon: Daemon) -> None:
    def first_token(bias: dict[str, int]) -> str:
        answer = client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "Hello"}],
            temperature=0,
            max_tokens=1,
            logprobs=True,
            logit_bias=bias,
        )
        return answer.choices[0].message.content or ""

    usual = first_token({})
    assert first_token({"339": 100}) != usual
    with pytest.raises(openai.BadRequestError) as foreign:
        first_token({"4000000": 1})
    assert foreign.value.code == "invalid_request"
    assert foreign.value.param == "logit_bias"
