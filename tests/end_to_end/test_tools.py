"""Tools through all three dialects, by their official clients, with a model that has never heard of tools."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import ollama
import openai
import pytest
from jsonschema import Draft202012Validator

from tests.end_to_end.conftest import MODEL, TIMEOUT, Daemon

SCHEMA: Any = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 30},
        "days": {"type": "integer", "minimum": 1, "maximum": 7},
        "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
    },
    "required": ["city", "unit"],
    "additionalProperties": False,
}
DESCRIPTION = "Tells the weather of a city."
TOOL: Any = {"type": "function", "function": {"name": "get_weather", "description": DESCRIPTION, "parameters": SCHEMA}}
NOTHING = {"type": "object", "properties": {}, "additionalProperties": False}
OTHER: Any = {"type": "function", "function": {"name": "note", "parameters": NOTHING}}
QUESTION: Any = [{"role": "user", "content": "What is the weather in Paris?"}]


@pytest.fixture
def openai_client(shared_daemon: Daemon) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{shared_daemon.url}/v1", api_key="any", max_retries=0, timeout=TIMEOUT) as client:
        yield client


@pytest.fixture
def ollama_chat(shared_daemon: Daemon) -> Any:
    def chat(**more: Any) -> dict[str, Any]:
        # The official client has no tool_choice, which is Puna's own here.
        body = {"model": MODEL, "messages": QUESTION, "stream": False, "options": {"temperature": 0}} | more
        answer = shared_daemon.client.post("/api/chat", json=body)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    return chat


@pytest.mark.parametrize("seed", range(4))
def test_a_required_call_is_always_valid(openai_client: Any, seed: int) -> None:
    answer = openai_client.chat.completions.create(
        model=MODEL,
        messages=QUESTION,
        tools=[TOOL, OTHER],
        tool_choice="required",
        temperature=1.5,
        seed=seed,
        max_tokens=200,
    )
    (call,) = answer.choices[0].message.tool_calls
    schemas = {"get_weather": SCHEMA, "note": NOTHING}
    Draft202012Validator(schemas[call.function.name]).validate(json.loads(call.function.arguments))
    assert answer.choices[0].finish_reason == "tool_calls"


def test_a_named_tool_is_the_one_that_is_called(openai_client: Any) -> None:
    answer = openai_client.chat.completions.create(
        model=MODEL,
        messages=QUESTION,
        tools=[TOOL, OTHER],
        tool_choice={"type": "function", "function": {"name": "note"}},
        max_tokens=60,
    )
    (call,) = answer.choices[0].message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("note", {})


def test_only_allowed_tools_are_called(openai_client: Any) -> None:
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": "note"}}]}
    answer = openai_client.chat.completions.create(
        model=MODEL,
        messages=QUESTION,
        tools=[TOOL, OTHER],
        tool_choice={"type": "allowed_tools", "allowed_tools": allowed},
        max_tokens=60,
    )
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.name == "note"


def test_without_leave_no_tool_is_called(openai_client: Any) -> None:
    answer = openai_client.chat.completions.create(
        model=MODEL, messages=QUESTION, tools=[TOOL], tool_choice="none", max_tokens=20
    )
    assert answer.choices[0].message.tool_calls is None
    assert answer.choices[0].message.content


def test_a_streamed_call_adds_up(openai_client: Any) -> None:
    stream = openai_client.chat.completions.create(
        model=MODEL, messages=QUESTION, tools=[TOOL], tool_choice="required", max_tokens=150, stream=True
    )
    names, arguments, reasons = [], [], []
    for chunk in stream:
        for choice in chunk.choices:
            for delta in choice.delta.tool_calls or ():
                names.append(delta.function.name)
                arguments.append(delta.function.arguments)
            reasons.append(choice.finish_reason)
    assert [name for name in names if name] == ["get_weather"]
    assert sum(bool(text) for text in arguments) > 3
    Draft202012Validator(SCHEMA).validate(json.loads("".join(text or "" for text in arguments)))
    assert reasons[-1] == "tool_calls"


def test_a_tools_result_is_read_by_the_model(shared_daemon: Daemon) -> None:
    call = {"function": {"name": "get_weather", "arguments": {"city": "Paris", "unit": "celsius"}}}
    turns: Any = [
        *QUESTION,
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_name": "get_weather", "content": "21 degrees, sunny"},
    ]
    rendered = shared_daemon.client.post(
        "/api/render", json={"model": MODEL, "messages": turns, "tools": [TOOL]}
    ).json()
    assert "21 degrees, sunny" in rendered["prompt"]
    assert '"city": "Paris"' in rendered["prompt"]
    assert DESCRIPTION in rendered["prompt"]
    assert rendered["prompt_tokens"] == len(rendered["tokens"])
    body = {"model": MODEL, "messages": turns, "tools": [TOOL], "stream": False, "options": {"num_predict": 8}}
    assert shared_daemon.client.post("/api/chat", json=body).json()["prompt_eval_count"] == rendered["prompt_tokens"]
    # The official client leaves some keywords of schemas out, so the counts differ there.
    client = ollama.Client(host=shared_daemon.url)
    answer = client.chat(MODEL, turns, tools=[TOOL], options={"num_predict": 8})
    assert answer.message.content
    client._client.close()


def test_a_schema_that_cannot_be_honoured_is_refused(openai_client: Any) -> None:
    deep: dict[str, Any] = {"type": "object"}
    for _ in range(60):
        deep = {"type": "object", "properties": {"a": deep}}
    tool = {"type": "function", "function": {"name": "f", "parameters": deep}}
    with pytest.raises(openai.BadRequestError):
        openai_client.chat.completions.create(model=MODEL, messages=QUESTION, tools=[tool], tool_choice="required")
