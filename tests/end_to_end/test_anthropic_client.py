"""The official Anthropic client against a live daemon with a real model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

import anthropic
import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel

from tests.end_to_end.conftest import MODEL, TIMEOUT, Daemon

WEATHER: Any = {
    "name": "get_weather",
    "description": "Tells the weather of a city.",
    "input_schema": {
        "type": "object",
        "properties": {
            "city": {"type": "string", "maxLength": 30},
            "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
        },
        "required": ["city", "unit"],
        "additionalProperties": False,
    },
}
QUESTION: Any = [{"role": "user", "content": "What is the weather in Paris?"}]


class Cat(BaseModel):
    name: Literal["Tom", "Mia"]
    is_black: bool


@pytest.fixture(scope="module")
def client(shared_daemon: Daemon) -> Iterator[Any]:
    with anthropic.Anthropic(base_url=shared_daemon.url, api_key="any", max_retries=0, timeout=TIMEOUT) as client:
        yield client


def test_a_message_is_answered(client: Any) -> None:
    message = client.messages.create(
        model=MODEL, max_tokens=12, system="Answer briefly.", messages=QUESTION, extra_body={"temperature": 0}
    )
    assert message.role == "assistant"
    assert message.content[0].type == "text"
    assert message.content[0].text
    assert message.stop_reason in ("end_turn", "max_tokens")
    assert message.usage.output_tokens > 0
    assert message.usage.input_tokens + (message.usage.cache_read_input_tokens or 0) > 10


def test_a_stream_adds_up_to_the_message(client: Any) -> None:
    exactly = {"temperature": 0, "deterministic": True}
    arguments: Any = {"model": MODEL, "max_tokens": 12, "messages": QUESTION, "extra_body": exactly}
    whole = client.messages.create(**arguments)
    with client.messages.stream(**arguments) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_message()
    assert final.content[0].text == whole.content[0].text
    assert final.stop_reason == whole.stop_reason
    assert final.usage.output_tokens == whole.usage.output_tokens
    assert kinds[0] == "message_start"
    assert kinds[-1] == "message_stop"
    events = list(client.messages.create(**arguments, stream=True))
    pieces = [event.delta.text for event in events if event.type == "content_block_delta"]
    assert "".join(pieces) == whole.content[0].text
    assert [event.type for event in events][-2:] == ["message_delta", "message_stop"]


def test_a_required_call_is_valid_for_its_tool(client: Any) -> None:
    message = client.messages.create(
        model=MODEL, max_tokens=200, messages=QUESTION, tools=[WEATHER], tool_choice={"type": "any"}
    )
    assert message.stop_reason == "tool_use"
    call = message.content[-1]
    assert call.type == "tool_use"
    assert call.name == "get_weather"
    Draft202012Validator(WEATHER["input_schema"]).validate(call.input)


def test_a_streamed_call_comes_piece_by_piece(client: Any) -> None:
    with client.messages.stream(
        model=MODEL,
        max_tokens=200,
        messages=QUESTION,
        tools=[WEATHER],
        tool_choice={"type": "tool", "name": "get_weather"},
    ) as stream:
        pieces = [
            event.delta.partial_json
            for event in stream
            if event.type == "content_block_delta" and event.delta.type == "input_json_delta"
        ]
        final = stream.get_final_message()
    assert final.stop_reason == "tool_use"
    assert len(pieces) > 1
    assert json.loads("".join(pieces)) == final.content[-1].input


def test_a_tools_result_goes_back_into_the_conversation(client: Any) -> None:
    turns: Any = [
        *QUESTION,
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "I look."},
                {
                    "type": "tool_use",
                    "id": "toolu_1",
                    "name": "get_weather",
                    "input": {"city": "Paris", "unit": "celsius"},
                },
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "21 degrees"}]},
                {"type": "text", "text": "And now?"},
            ],
        },
    ]
    message = client.messages.create(model=MODEL, max_tokens=8, messages=turns, tools=[WEATHER])
    assert message.usage.output_tokens > 0


def test_a_stop_sequence_is_named(client: Any) -> None:
    message = client.messages.create(
        model=MODEL,
        max_tokens=100,
        messages=[{"role": "user", "content": "Count to ten."}, {"role": "assistant", "content": "1, 2, 3"}],
        stop_sequences=["5"],
        extra_body={"temperature": 0, "deterministic": True},
    )
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "5")
    assert message.content[0].text == ", 4, "


def test_an_answer_follows_a_json_schema(client: Any) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}, "warm": {"type": "boolean"}},
        "required": ["city", "warm"],
        "additionalProperties": False,
    }
    message = client.messages.create(
        model=MODEL,
        max_tokens=200,
        messages=QUESTION,
        output_config={"format": {"type": "json_schema", "schema": schema}},
    )
    Draft202012Validator(schema).validate(json.loads(message.content[0].text))


def test_an_answer_is_parsed_into_the_type_that_was_asked_for(client: Any) -> None:
    asked: Any = {"model": MODEL, "max_tokens": 200, "messages": [{"role": "user", "content": "Invent a cat."}]}
    assert isinstance(client.messages.parse(**asked, output_format=Cat).parsed_output, Cat)
    assert isinstance(client.beta.messages.parse(**asked, output_format=Cat).parsed_output, Cat)


def test_models_are_listed_and_found(client: Any) -> None:
    assert MODEL in {model.id for model in client.models.list()}
    assert MODEL in {model.id for model in client.beta.models.list()}
    found = client.models.retrieve(MODEL)
    assert (found.id, found.type) == (MODEL, "model")
    assert client.beta.models.retrieve(MODEL).to_dict() == found.to_dict()
    with pytest.raises(anthropic.NotFoundError):
        client.models.retrieve("no-such-model")


def test_answers_are_taken_as_they_come(client: Any) -> None:
    asked: Any = {"model": MODEL, "max_tokens": 4, "messages": QUESTION}
    raw = client.messages.with_raw_response.create(**asked)
    assert raw.headers["request-id"] == raw.headers["x-request-id"]
    assert raw.parse().content[0].text
    with client.messages.with_streaming_response.create(**asked, stream=True) as response:
        lines = [line for line in response.iter_lines() if line]
    assert lines[-2] == "event: message_stop"


def test_tokens_are_counted_without_answering(client: Any) -> None:
    count = client.messages.count_tokens(model=MODEL, messages=QUESTION, system="Answer briefly.")
    message = client.messages.create(model=MODEL, max_tokens=1, messages=QUESTION, system="Answer briefly.")
    assert count.input_tokens == message.usage.input_tokens + (message.usage.cache_read_input_tokens or 0)
    with_tools = client.messages.count_tokens(model=MODEL, messages=QUESTION, tools=[WEATHER])
    assert with_tools.input_tokens > count.input_tokens


def test_errors_have_the_dialects_shape(client: Any) -> None:
    with pytest.raises(anthropic.NotFoundError) as missing:
        client.messages.create(model="no-such-model", max_tokens=1, messages=QUESTION)
    told: Any = missing.value.body
    assert (told["type"], told["error"]["type"]) == ("error", "not_found_error")
    with pytest.raises(anthropic.BadRequestError) as wrong:
        client.messages.create(model=MODEL, max_tokens=1, messages=QUESTION, extra_body={"no_such_field": 1})
    told = wrong.value.body
    assert "no_such_field" in told["error"]["message"]
    assert told["error"]["type"] == "invalid_request_error"
