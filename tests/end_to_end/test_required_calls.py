"""A call that is required comes from any model with a chat template, also from one whose weights are dice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.end_to_end.conftest import Daemon, running_daemon
from tests.tiny_model import CHAT_TEMPLATE, write_tiny_model

WEATHER: Any = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "minLength": 1, "maxLength": 8},
        "days": {"type": "integer", "minimum": 0, "maximum": 99},
        "unit": {"anyOf": [{"$ref": "#/$defs/Unit"}, {"type": "null"}]},
    },
    "required": ["city", "unit"],
    "additionalProperties": False,
    "$defs": {"Unit": {"type": "string", "enum": ["celsius", "fahrenheit"]}},
}
WAIT: Any = {"type": "object", "properties": {"long": {"type": "boolean"}}, "additionalProperties": False}
SCHEMAS = {"get_weather": WEATHER, "wait": WAIT}
MARKS = {
    "told": "",
    "tagged": "<tool_call>",
    "named": "<function= <parameter=",
    "paired": "<arg_key> <arg_value>",
    "python": "[func_name1(",
    "quoted": "<|tool_call>",
    "bare": '{"name": parameters <|eot_id|>',
}
"""By model: what in its chat template tells how its calls are written."""
HOT = {"temperature": 2, "top_p": 1, "seed": 5}
ENOUGH, TOO_FEW = 400, 12


@dataclass(frozen=True)
class Told:
    calls: list[tuple[str, str]]
    """Names and the JSON text of the arguments."""
    reason: str
    text: str = ""


@pytest.fixture(scope="module")
def dice(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with one model of random weights under a name for each kind of template."""
    home = tmp_path_factory.mktemp("home")
    data = write_tiny_model(home / "tiny.gguf", context_length=4096).read_bytes()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    with running_daemon(home, home / "models") as daemon:
        daemon.client.post(f"/api/blobs/{digest}", content=data).raise_for_status()
        for name, marks in MARKS.items():
            body = {"model": name, "files": {"tiny.gguf": digest}, "template": f"{CHAT_TEMPLATE}{{# {marks} #}}"}
            daemon.client.post("/api/create", json=body | {"stream": False}).raise_for_status()
        yield daemon


def post(daemon: Daemon, path: str, body: dict[str, Any]) -> str:
    answer = daemon.client.post(path, json=body | {"messages": [{"role": "user", "content": "Rain?"}]})
    assert answer.status_code == 200, answer.text
    return answer.text


def events_in(text: str) -> list[dict[str, Any]]:
    data = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: {")]
    return [json.loads(one) for one in data]


FUNCTIONS = [{"type": "function", "function": {"name": name, "parameters": one}} for name, one in SCHEMAS.items()]


def by_ollama(daemon: Daemon, model: str, limit: int, *, streams: bool) -> Told:
    options = HOT | {"num_predict": limit}
    body = {"model": model, "tools": FUNCTIONS, "tool_choice": "required", "stream": streams, "options": options}
    records = [json.loads(line) for line in post(daemon, "/api/chat", body).splitlines()]
    found = [one["function"] for record in records for one in record["message"].get("tool_calls", ())]
    text = "".join(record["message"]["content"] for record in records)
    reason = records[-1]["done_reason"]
    calls = [(one["name"], json.dumps(one["arguments"])) for one in found]
    return Told(calls, "called" if calls and reason == "stop" else reason, text)


def by_openai(daemon: Daemon, model: str, limit: int, *, streams: bool) -> Told:
    body = {"model": model, "tools": FUNCTIONS, "tool_choice": "required", "max_tokens": limit, "stream": streams}
    text = post(daemon, "/v1/chat/completions", body | HOT)
    choices = [one["choices"][0] for one in (events_in(text) if streams else [json.loads(text)])]
    calls: dict[int, list[str]] = {}
    for choice in choices:
        for one in choice["delta" if streams else "message"].get("tool_calls") or ():
            call = calls.setdefault(one.get("index", 0), ["", ""])
            call[0] += one["function"].get("name") or ""
            call[1] += one["function"].get("arguments") or ""
    reason = choices[-1]["finish_reason"]
    return Told([(name, arguments) for name, arguments in calls.values()], {"tool_calls": "called"}.get(reason, reason))


def by_anthropic(daemon: Daemon, model: str, limit: int, *, streams: bool) -> Told:
    tools = [{"name": name, "input_schema": schema} for name, schema in SCHEMAS.items()]
    choice = {"type": "any"}
    body = {"model": model, "tools": tools, "tool_choice": choice, "max_tokens": limit, "stream": streams}
    text = post(daemon, "/v1/messages", body | HOT)
    if not streams:
        message = json.loads(text)
        called = [(one["name"], json.dumps(one["input"])) for one in message["content"] if one["type"] == "tool_use"]
        return Told(called, {"tool_use": "called", "max_tokens": "length"}[message["stop_reason"]])
    calls: list[tuple[str, str]] = []
    reason = ""
    for event in events_in(text):
        if event["type"] == "content_block_start" and event["content_block"]["type"] == "tool_use":
            calls.append((event["content_block"]["name"], ""))
        elif event["type"] == "content_block_delta" and event["delta"]["type"] == "input_json_delta":
            calls[-1] = (calls[-1][0], calls[-1][1] + event["delta"]["partial_json"])
        elif event["type"] == "message_delta":
            reason = event["delta"]["stop_reason"]
    return Told(calls, {"tool_use": "called", "max_tokens": "length"}[reason])


DIALECTS: list[Callable[..., Told]] = [by_ollama, by_openai, by_anthropic]


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda one: one.__name__)
@pytest.mark.parametrize("model", MARKS)
def test_a_required_call_is_valid_for_its_tool(
    dice: Daemon, model: str, dialect: Callable[..., Told], streams: bool
) -> None:
    told = dialect(dice, model, ENOUGH, streams=streams)
    assert (told.reason, told.text) == ("called", "")
    [(name, arguments)] = told.calls
    Draft202012Validator(SCHEMAS[name]).validate(json.loads(arguments))


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda one: one.__name__)
def test_a_call_that_is_cut_off_ends_by_length(dice: Daemon, dialect: Callable[..., Told], streams: bool) -> None:
    assert dialect(dice, "told", TOO_FEW, streams=streams).reason == "length"
