"""The official OpenAI client against a live daemon with a real model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam
from pydantic import BaseModel

from tests.end_to_end.conftest import MODEL, TIMEOUT, Daemon

QUESTION: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Name three colours."}]


class Cat(BaseModel):
    name: Literal["Tom", "Mia"]
    is_black: bool


@pytest.fixture
def client(changing_daemon: Daemon) -> Iterator[openai.OpenAI]:
    base = f"{changing_daemon.url}/v1"
    with openai.OpenAI(base_url=base, api_key="any", max_retries=0, timeout=TIMEOUT) as client:
        yield client


def test_a_completion_has_text_a_reason_and_usage(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, max_tokens=24)
    [choice] = answer.choices
    assert choice.message.content
    assert choice.finish_reason in ("stop", "length")
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 34
    assert 0 < answer.usage.completion_tokens <= 24
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_stream_brings_the_same_text_and_usage_when_asked(client: openai.OpenAI) -> None:
    exactly = {"deterministic": True}
    whole = client.chat.completions.create(
        model=MODEL, messages=QUESTION, temperature=0, max_tokens=24, extra_body=exactly
    )
    chunks = list(
        client.chat.completions.create(
            model=MODEL,
            messages=QUESTION,
            temperature=0,
            max_tokens=24,
            extra_body=exactly,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == whole.choices[0].finish_reason
    assert len({chunk.id for chunk in chunks}) == 1
    usage, usage_whole = chunks[-1].usage, whole.usage
    assert usage is not None and usage_whole is not None
    assert (usage.prompt_tokens, usage.total_tokens) == (usage_whole.prompt_tokens, usage_whole.total_tokens)


def test_an_answer_is_parsed_into_the_type_that_was_asked_for(client: openai.OpenAI) -> None:
    parsed = client.chat.completions.parse(
        model=MODEL,
        messages=[{"role": "user", "content": "Invent a cat."}],
        response_format=Cat,
        max_tokens=200,
        temperature=0,
    )
    assert isinstance(parsed.choices[0].message.parsed, Cat)


def test_a_stream_is_put_together_by_the_client(client: openai.OpenAI) -> None:
    # No text of any length is without that letter, so that it ends as the client wants it to.
    with client.chat.completions.stream(model=MODEL, messages=QUESTION, stop=["e"], max_tokens=400) as stream:
        text = "".join(event.delta for event in stream if event.type == "content.delta")
        final = stream.get_final_completion()
    assert text == final.choices[0].message.content
    assert final.choices[0].finish_reason == "stop"


def test_answers_are_taken_as_they_come(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=QUESTION, temperature=0, max_tokens=4)
    assert raw.headers["x-request-id"] == raw.request_id
    assert raw.parse().choices[0].message.content
    with client.chat.completions.with_streaming_response.create(
        model=MODEL, messages=QUESTION, max_tokens=4, stream=True
    ) as response:
        lines = [line for line in response.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"


def test_content_parts_and_the_developer_role_are_understood(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[
            {"role": "developer", "content": "Answer in one word."},
            {"role": "user", "content": [{"type": "text", "text": "Is the sky "}, {"type": "text", "text": "blue?"}]},
        ],
        max_completion_tokens=8,
        temperature=0,
    )
    assert answer.choices[0].message.content


def test_models_are_listed_and_found(client: openai.OpenAI) -> None:
    assert MODEL in {model.id for model in client.models.list()}
    assert client.models.retrieve(MODEL).object == "model"


def test_a_model_is_deleted(client: openai.OpenAI, changing_daemon: Daemon) -> None:
    body = {"source": MODEL, "destination": "short-lived"}
    assert changing_daemon.client.post("/api/copy", json=body).status_code == 200
    deleted = client.models.delete("short-lived")
    assert (deleted.id, deleted.deleted, deleted.object) == ("short-lived", True, "model")
    with pytest.raises(openai.NotFoundError):
        client.models.delete("short-lived")
    assert "short-lived:latest" not in {model.id for model in client.models.list()}


def test_errors_arrive_as_the_clients_own_exceptions(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="no-such-model", messages=[{"role": "user", "content": "hi"}])
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as wrong:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "hi"}], temperature=-1)
    assert wrong.value.code == "invalid_request"
    with pytest.raises(openai.BadRequestError) as too_long:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "word " * 9000}])
    assert too_long.value.code == "context_length_exceeded"


def test_what_is_not_built_is_refused_and_not_dropped(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "hi"}], modalities=["text", "audio"]
        )
    assert caught.value.code == "unsupported"
