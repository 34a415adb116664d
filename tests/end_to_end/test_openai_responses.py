"""Responses through the official OpenAI client, against a live daemon with a real model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

import openai
import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel

from tests.end_to_end.conftest import MODEL, TIMEOUT, Daemon

WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "Tells the weather of a city.",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {
            "city": {"type": "string", "maxLength": 30},
            "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
        },
        "required": ["city", "unit"],
        "additionalProperties": False,
    },
}


class Cat(BaseModel):
    name: Literal["Tom", "Mia"]
    is_black: bool


@pytest.fixture(scope="module")
def client(shared_daemon: Daemon) -> Iterator[Any]:
    # Its types are unions of everything that responses can hold elsewhere.
    base = f"{shared_daemon.url}/v1"
    with openai.OpenAI(base_url=base, api_key="any", max_retries=0, timeout=TIMEOUT) as client:
        yield client


def test_a_question_is_answered_and_the_answer_can_be_fetched_again(client: Any) -> None:
    asked: Any = {"instructions": "Answer briefly.", "input": "Name a colour.", "metadata": {"who": "test"}}
    response = client.responses.create(model=MODEL, temperature=0, **asked)
    assert response.output_text
    assert response.status == "completed"
    assert response.usage is not None and response.usage.output_tokens > 0
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
    again = client.responses.retrieve(response.id)
    assert again.to_dict() == response.to_dict()
    assert again.metadata == {"who": "test"}
    (item,) = client.responses.input_items.list(response.id)
    assert item.type == "message" and item.role == "user"
    client.responses.delete(response.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(response.id)


def test_a_conversation_goes_on_from_a_stored_response(client: Any) -> None:
    first = client.responses.create(
        model=MODEL, instructions="You are a parrot.", input="My name is Ada.", max_output_tokens=8, temperature=0
    )
    # What is computed beside what is cached may differ a little; texts are compared where it cannot.
    exactly: Any = {"model": MODEL, "max_output_tokens": 8, "temperature": 0, "extra_body": {"deterministic": True}}
    second = client.responses.create(**exactly, input="What is my name?", previous_response_id=first.id)
    assert second.usage is not None and first.usage is not None
    assert second.usage.input_tokens > first.usage.input_tokens
    whole = client.responses.create(
        **exactly,
        input=[
            {"role": "user", "content": "My name is Ada."},
            *first.model_dump(include={"output"}, exclude_none=True)["output"],
            {"role": "user", "content": "What is my name?"},
        ],
        store=False,
    )
    assert whole.output_text == second.output_text, "items sent again are what was stored"
    assert [item.id for item in client.responses.input_items.list(second.id, order="asc")][1] == first.output[0].id
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(whole.id)


def test_an_answer_that_is_cut_off_is_incomplete(client: Any) -> None:
    response = client.responses.create(model=MODEL, input="Tell a long story.", max_output_tokens=4)
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.output[0].status == "incomplete"


def test_a_stream_adds_up_to_the_whole_answer(client: Any) -> None:
    asked: Any = {"model": MODEL, "input": "Count to three.", "temperature": 0, "max_output_tokens": 60}
    # An answer of this form comes to its end, which the client waits for.
    asked["extra_body"] = {"deterministic": True, "grammar": {"type": "regex", "value": "[A-Z][a-z, ]{20,40}"}}
    with client.responses.stream(**asked) as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [events[0].type, events[1].type, events[-1].type] == [
        "response.created",
        "response.in_progress",
        "response.completed",
    ]
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == final.output_text == client.responses.create(**asked).output_text
    assert client.responses.retrieve(final.id).output_text == text
    raw = list(client.responses.create(**asked, stream=True))
    assert {event.type for event in raw} == {event.type for event in events}


def test_an_answer_that_has_ended_cannot_be_cancelled(client: Any) -> None:
    response = client.responses.create(model=MODEL, input="Hello", max_output_tokens=1)
    with pytest.raises(openai.BadRequestError):
        client.responses.cancel(response.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.cancel("resp_0")


def test_what_is_called_beta_is_the_same(client: Any) -> None:
    asked: Any = {"model": MODEL, "input": "Name a colour.", "max_output_tokens": 8, "temperature": 0}
    asked["extra_body"] = {"deterministic": True}
    response = client.beta.responses.create(**asked)
    assert client.beta.responses.retrieve(response.id).output == response.output
    (item,) = client.beta.responses.input_items.list(response.id)
    assert item.type == "message"
    *_, last = client.beta.responses.create(**asked, stream=True)
    assert last.response.output[0].content == response.output[0].content
    behind = client.beta.responses.create(**asked, background=True)
    *_, last = client.beta.responses.retrieve(behind.id, stream=True)
    assert last.response.output[0].content == response.output[0].content
    counted = client.beta.responses.input_tokens.count(model=MODEL, input="Name a colour.")
    assert counted.input_tokens == response.usage.input_tokens
    with pytest.raises(openai.BadRequestError):
        client.beta.responses.cancel(response.id)
    client.beta.responses.delete(response.id)
    with pytest.raises(openai.NotFoundError):
        client.beta.responses.retrieve(response.id)


def test_a_required_call_is_valid_streamed_and_not(client: Any) -> None:
    asked: Any = {
        "model": MODEL,
        "input": "What is the weather in Paris?",
        "tools": [WEATHER],
        "tool_choice": {"type": "function", "name": "get_weather"},
        "temperature": 0,
    }
    whole = client.responses.create(**asked)
    with client.responses.stream(**asked) as stream:
        events = list(stream)
        streamed = stream.get_final_response()
    for response in (whole, streamed):
        (call,) = response.output
        assert call.type == "function_call"
        Draft202012Validator(WEATHER["parameters"]).validate(json.loads(call.arguments))
    deltas = "".join(event.delta for event in events if event.type == "response.function_call_arguments.delta")
    assert deltas == streamed.output[0].arguments
    answer = client.responses.create(
        model=MODEL,
        previous_response_id=whole.id,
        input=[{"type": "function_call_output", "call_id": whole.output[0].call_id, "output": "Sunny."}],
        tools=[WEATHER],
        tool_choice="none",
        max_output_tokens=8,
    )
    assert answer.output[0].type == "message"


def test_an_answer_is_parsed_into_the_type_that_was_asked_for(client: Any) -> None:
    response = client.responses.parse(
        model=MODEL, input="Invent a cat.", text_format=Cat, temperature=0, max_output_tokens=200
    )
    assert isinstance(response.output_parsed, Cat)


def test_logprobs_come_with_the_text_when_they_are_included(client: Any) -> None:
    response = client.responses.create(
        model=MODEL,
        input="Say hello.",
        max_output_tokens=4,
        include=["message.output_text.logprobs"],
        top_logprobs=2,
    )
    (part,) = response.output[0].content
    assert part.type == "output_text" and part.logprobs
    assert all(len(token.top_logprobs) == 2 for token in part.logprobs)


def test_input_tokens_are_those_of_the_answer(client: Any) -> None:
    counted = client.responses.input_tokens.count(model=MODEL, input="How are you?", instructions="Be kind.")
    response = client.responses.create(
        model=MODEL, input="How are you?", instructions="Be kind.", max_output_tokens=1, store=False
    )
    assert response.usage is not None and response.usage.input_tokens == counted.input_tokens


def test_an_answer_is_made_again_from_its_receipt(client: Any) -> None:
    first = client.responses.create(
        model=MODEL, input="Tell of the sea.", max_output_tokens=12, extra_body={"receipt": True, "deterministic": True}
    )
    receipt: Any = first.model_extra and first.model_extra["receipt"]
    again = client.responses.create(
        model=MODEL,
        input="Tell of the sea.",
        max_output_tokens=receipt["options"]["num_predict"],
        temperature=receipt["options"]["temperature"],
        extra_body={"seed": receipt["seed"], "deterministic": True},
    )
    assert again.output_text == first.output_text
    assert receipt["model_digest"].startswith("sha256:") and receipt["engine"]


def test_too_long_a_prompt_is_refused_with_its_length(client: Any) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(model=MODEL, input="word " * 9000, max_output_tokens=2)
    assert refused.value.code == "context_length_exceeded"
    told: Any = refused.value.body
    assert told["prompt_tokens"] > told["context_length"] > 0
