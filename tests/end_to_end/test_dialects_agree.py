"""The same conversation with tools through all three dialects: the same prompt, the same answer, the same calls."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import anthropic
import openai
import pytest
from jsonschema import Draft202012Validator

from tests.end_to_end.conftest import MODEL, TIMEOUT, Daemon

SCHEMA: Any = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "enum": ["Paris", "Rome", "Oslo"]},
        "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
    },
    "required": ["city", "unit"],
    "additionalProperties": False,
}
NOTHING = {"type": "object", "properties": {}, "additionalProperties": False}
SCHEMAS = {"get_weather": SCHEMA, "wait": NOTHING}
TOLD = {"get_weather": "Tells the weather of a city.", "wait": "Does nothing."}
FUNCTIONS: Any = [
    {"type": "function", "function": {"name": name, "description": TOLD[name], "parameters": schema}}
    for name, schema in SCHEMAS.items()
]
ARGUMENTS = {"city": "Paris", "unit": "celsius"}
CHOICES: Any = {
    "auto": ("auto", {"type": "auto"}),
    "none": ("none", {"type": "none"}),
    "required": ("required", {"type": "any"}),
    "named": ({"type": "function", "function": {"name": "get_weather"}}, {"type": "tool", "name": "get_weather"}),
}
LIMIT = 40


@dataclass(frozen=True)
class Answer:
    """What one dialect told."""

    text: str
    calls: list[tuple[str, dict[str, Any]]]
    prompt_tokens: int
    is_called: bool
    """Whether it ended with calls, by its own word."""


@pytest.fixture(scope="module")
def openai_client(shared_daemon: Daemon) -> Iterator[Any]:
    base = f"{shared_daemon.url}/v1"
    with openai.OpenAI(base_url=base, api_key="any", max_retries=0, timeout=TIMEOUT) as client:
        yield client


@pytest.fixture(scope="module")
def anthropic_client(shared_daemon: Daemon) -> Iterator[Any]:
    with anthropic.Anthropic(base_url=shared_daemon.url, api_key="any", max_retries=0, timeout=TIMEOUT) as client:
        yield client


def from_openai(client: Any, choice: Any, *, is_streamed: bool) -> Answer:
    call = {"name": "get_weather", "arguments": json.dumps(ARGUMENTS)}
    asked: Any = {
        "model": MODEL,
        "messages": [
            {"role": "system", "content": "Use the tools."},
            {"role": "user", "content": "What is the weather in Paris?"},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": call}]},
            {"role": "tool", "tool_call_id": "1", "content": "21 degrees"},
            {"role": "user", "content": "And in Rome?"},
        ],
        "tools": FUNCTIONS,
        "tool_choice": choice,
        "max_tokens": LIMIT,
        "temperature": 0,
        "extra_body": {"deterministic": True},
    }
    if is_streamed:
        with client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}) as stream:
            chunks = list(stream)
        deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
        pieces: dict[int, list[str]] = {}
        for one in [one for delta in deltas for one in delta.tool_calls or ()]:
            begun = pieces.setdefault(one.index, ["", ""])
            begun[0] += one.function.name or ""
            begun[1] += one.function.arguments or ""
        calls = [(name, json.loads(text)) for name, text in pieces.values()]
        reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
        text = "".join(delta.content or "" for delta in deltas)
        return Answer(text, calls, chunks[-1].usage.prompt_tokens, reasons[-1] == "tool_calls")
    answer = client.chat.completions.create(**asked)
    [told] = answer.choices
    calls = [(one.function.name, json.loads(one.function.arguments)) for one in told.message.tool_calls or ()]
    return Answer(told.message.content or "", calls, answer.usage.prompt_tokens, told.finish_reason == "tool_calls")


def from_anthropic(client: Any, choice: Any, *, is_streamed: bool) -> Answer:
    asked: Any = {
        "model": MODEL,
        "system": "Use the tools.",
        "messages": [
            {"role": "user", "content": "What is the weather in Paris?"},
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "1", "name": "get_weather", "input": ARGUMENTS}],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "1", "content": "21 degrees"},
                    {"type": "text", "text": "And in Rome?"},
                ],
            },
        ],
        "tools": [
            {"name": name, "description": TOLD[name], "input_schema": schema} for name, schema in SCHEMAS.items()
        ],
        "tool_choice": choice,
        "max_tokens": LIMIT,
        "extra_body": {"temperature": 0, "deterministic": True},
    }
    if is_streamed:
        with client.messages.stream(**asked) as stream:
            message = stream.get_final_message()
    else:
        message = client.messages.create(**asked)
    calls = [(block.name, block.input) for block in message.content if block.type == "tool_use"]
    text = "".join(block.text for block in message.content if block.type == "text")
    read = message.usage.input_tokens + (message.usage.cache_read_input_tokens or 0)
    return Answer(text, calls, read, message.stop_reason == "tool_use")


def from_ollama(daemon: Daemon, choice: Any, *, is_streamed: bool) -> Answer:
    # Not with the official client: it knows no tool_choice, and leaves some keywords of schemas out.
    call = {"function": {"name": "get_weather", "arguments": ARGUMENTS}}
    body = {
        "model": MODEL,
        "messages": [
            {"role": "system", "content": "Use the tools."},
            {"role": "user", "content": "What is the weather in Paris?"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "tool_name": "get_weather", "content": "21 degrees"},
            {"role": "user", "content": "And in Rome?"},
        ],
        "tools": FUNCTIONS,
        "tool_choice": choice,
        "stream": is_streamed,
        "options": {"temperature": 0, "num_predict": LIMIT, "deterministic": True},
    }
    answer = daemon.client.post("/api/chat", json=body)
    assert answer.status_code == 200, answer.text
    records = [json.loads(line) for line in answer.text.splitlines()]
    found = [one["function"] for record in records for one in record["message"].get("tool_calls", ())]
    calls = [(one["name"], one["arguments"]) for one in found]
    text = "".join(record["message"]["content"] for record in records)
    return Answer(text, calls, records[-1]["prompt_eval_count"], bool(calls))


@pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("choice", CHOICES)
def test_the_same_conversation_gives_the_same_calls_through_all_three_dialects(
    shared_daemon: Daemon, openai_client: Any, anthropic_client: Any, choice: str, is_streamed: bool
) -> None:
    one, other = CHOICES[choice]
    told = from_openai(openai_client, one, is_streamed=is_streamed)
    assert from_anthropic(anthropic_client, other, is_streamed=is_streamed) == told
    assert from_ollama(shared_daemon, one, is_streamed=is_streamed) == told
    assert told.is_called == bool(told.calls)
    if choice in ("required", "named"):
        [(name, arguments)] = told.calls
        Draft202012Validator(SCHEMAS[name]).validate(arguments)
        assert choice == "required" or name == "get_weather"
    if choice == "none":
        assert told.calls == []
        assert told.text
