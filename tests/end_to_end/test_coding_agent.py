"""What a coding agent sends through the Anthropic dialect, as it sends it: many tools, marks for caches, thinking."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Literal

import anthropic
import pytest
from anthropic import beta_tool
from jsonschema import Draft202012Validator

from tests.end_to_end.conftest import MODEL, TIMEOUT, Daemon

HEADERS = {
    "accept": "application/json",
    "anthropic-beta": "interleaved-thinking-2025-05-14,fine-grained-tool-streaming-2025-05-14",
    "anthropic-dangerous-direct-browser-access": "true",
    "anthropic-version": "2023-06-01",
    "authorization": "Bearer any",
    "user-agent": "agent-cli/2.0 (external, cli)",
    "x-app": "cli",
    "x-stainless-helper-method": "stream",
    "x-stainless-lang": "js",
    "x-stainless-retry-count": "0",
    "x-stainless-timeout": "600",
}
CACHED = {"type": "ephemeral"}


def tool(name: str, description: str, **properties: dict[str, Any]) -> dict[str, Any]:
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "properties": properties,
        "required": list(properties)[:1],
        "additionalProperties": False,
    }
    return {"name": name, "description": description, "input_schema": schema}


PATH = {"type": "string", "description": "The absolute path of the file", "maxLength": 40}
TOOLS = [
    tool("Read", "Reads a file.", file_path=PATH, offset={"type": "number"}, limit={"type": "number"}),
    tool("Write", "Writes a file.", file_path=PATH, content={"type": "string"}),
    tool("Edit", "Replaces text.", file_path=PATH, old_string={"type": "string"}, new_string={"type": "string"},
         replace_all={"type": "boolean", "default": False}),
    tool("Glob", "Finds files.", pattern={"type": "string", "maxLength": 20}, path={"type": "string"}),
    tool("Grep", "Searches.", pattern={"type": "string"}, output_mode={"type": "string", "enum": ["content", "count"]},
         **{"-A": {"type": "number"}, "-i": {"type": "boolean"}}),
    tool("Bash", "Runs a command.", command={"type": "string"}, timeout={"type": "number"}),
    tool("TodoWrite", "Keeps a list.", todos={
        "type": "array", "items": {
            "type": "object", "additionalProperties": False, "required": ["content", "status"],
            "properties": {"content": {"type": "string", "minLength": 1},
                           "status": {"type": "string", "enum": ["pending", "in_progress", "completed"]}}}}),
    tool("mcp__files__list", "Lists.", directory={"anyOf": [{"type": "string"}, {"type": "null"}]}),
]  # fmt: skip
READ = TOOLS[0]["input_schema"]
SYSTEM = [
    {"type": "text", "text": "You are an agent for the command line.", "cache_control": CACHED},
    {"type": "text", "text": "Working directory: /work\nPlatform: linux", "cache_control": CACHED | {"ttl": "1h"}},
]
FIRST = {
    "role": "user",
    "content": [
        {"type": "text", "text": "<system-reminder>\nThe list of things to do is empty.\n</system-reminder>"},
        {"type": "text", "text": "What is in /work/a.txt?", "cache_control": CACHED},
    ],
}
LATER = [
    {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "Two files may tell.", "signature": "c2lnbmVk"},
            {"type": "text", "text": "I look."},
            {"type": "tool_use", "id": "toolu_1", "name": "Read", "input": {"file_path": "/work/a.txt"}},
            {"type": "tool_use", "id": "toolu_2", "name": "Glob", "input": {"pattern": "*.txt"}},
        ],
    },
    {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "toolu_1", "content": "1\tforty-two plums"},
            {
                "type": "tool_result",
                "tool_use_id": "toolu_2",
                "is_error": True,
                "content": [{"type": "text", "text": "no such folder"}],
                "cache_control": CACHED,
            },
            {"type": "text", "text": "<system-reminder>Go on.</system-reminder>"},
        ],
    },
]


def request(**more: Any) -> dict[str, Any]:
    return {
        "model": MODEL,
        "max_tokens": 32_000,
        "messages": [FIRST, *LATER],
        "system": SYSTEM,
        "tools": TOOLS,
        "metadata": {"user_id": "user_0_account__session_1"},
        "thinking": {"type": "enabled", "budget_tokens": 31_999},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "temperature": 1,
        **more,
    }


def events_of(text: str) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for record in text.strip().split("\n\n"):
        kind, data = record.split("\n", 1)
        found.append((kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


@pytest.fixture(scope="module")
def client(shared_daemon: Daemon) -> Iterator[Any]:
    with anthropic.Anthropic(base_url=shared_daemon.url, auth_token="any", max_retries=0, timeout=TIMEOUT) as client:
        yield client


def test_the_address_answers_and_a_first_probe_is_small(shared_daemon: Daemon) -> None:
    assert shared_daemon.client.head("/").status_code == 200
    probe = {"model": MODEL, "max_tokens": 1, "messages": [{"role": "user", "content": "quota"}]}
    answer = shared_daemon.client.post("/v1/messages?beta=true", json=probe, headers=HEADERS)
    assert (answer.status_code, answer.json()["stop_reason"]) == (200, "max_tokens")
    assert answer.headers["request-id"]


def test_tokens_are_counted_as_they_are_read(shared_daemon: Daemon) -> None:
    counting = {
        name: value for name, value in request().items() if name not in ("max_tokens", "metadata", "temperature")
    }
    counted = shared_daemon.client.post("/v1/messages/count_tokens?beta=true", json=counting, headers=HEADERS).json()
    answered = shared_daemon.client.post("/v1/messages?beta=true", json=request(max_tokens=1), headers=HEADERS)
    usage = answered.json()["usage"]
    read = sum(usage[name] for name in ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"))
    assert counted["input_tokens"] == read
    assert counted["input_tokens"] > 800, "tools, system and results are all read"


def test_the_model_reads_all_of_the_conversation(shared_daemon: Daemon) -> None:
    answer = shared_daemon.client.post("/v1/messages?beta=true", json=request(max_tokens=1), headers=HEADERS)
    assert answer.status_code == 200, answer.text
    ignored = answer.headers["x-puna-ignored"].split(", ")
    assert {"metadata", "context_management", "system[].cache_control", "thinking.budget_tokens"} <= set(ignored)
    asked: Any = {"model": MODEL, "tools": [], "messages": []}
    for block in SYSTEM:
        asked["messages"].append({"role": "system", "content": block["text"]})
    calls = [{"function": {"name": "Read", "arguments": {"file_path": "/work/a.txt"}}}]
    asked["messages"] += [
        {"role": "user", "content": "What is in /work/a.txt?"},
        {"role": "assistant", "content": "I look.", "tool_calls": calls},
        {"role": "tool", "tool_name": "Read", "content": "1\tforty-two plums"},
    ]
    prompt = shared_daemon.client.post("/api/render", json=asked).json()["prompt"]
    for told in ("forty-two plums", "Working directory: /work", '"/work/a.txt"'):
        assert told in prompt


def test_too_long_a_prompt_is_told_in_the_words_that_agents_know(client: Any) -> None:
    with pytest.raises(anthropic.BadRequestError) as refused:
        client.messages.create(model=MODEL, max_tokens=1, messages=[{"role": "user", "content": "word " * 9000}])
    assert re.search(r"prompt is too long: 90\d\d tokens > 8192 maximum", refused.value.message)


def test_a_streamed_call_arrives_in_order_with_usage(shared_daemon: Daemon) -> None:
    body = request(stream=True, max_tokens=300, tool_choice={"type": "tool", "name": "Read"})
    answer = shared_daemon.client.post("/v1/messages?beta=true", json=body, headers=HEADERS)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = events_of(answer.text)
    assert all(kind == data["type"] for kind, data in events)
    kinds = [kind for kind, _ in events if kind != "ping"]
    assert (kinds[0], kinds[-2:]) == ("message_start", ["message_delta", "message_stop"])
    started = [data for kind, data in events if kind == "content_block_start"]
    assert [block["index"] for block in started] == list(range(len(started)))
    assert kinds.count("content_block_stop") == len(started)
    call = started[-1]["content_block"]
    assert (call["type"], call["name"], call["input"]) == ("tool_use", "Read", {})
    deltas = [data["delta"] for _, data in events if data.get("index") == started[-1]["index"] and "delta" in data]
    arguments = json.loads("".join(delta["partial_json"] for delta in deltas))
    Draft202012Validator(READ).validate(arguments)
    (end,) = [data for kind, data in events if kind == "message_delta"]
    assert end["delta"]["stop_reason"] == "tool_use"
    assert end["usage"]["output_tokens"] > 0
    assert events[0][1]["message"]["usage"]["input_tokens"] >= 0


def test_a_turn_that_goes_on_reads_only_what_is_new(shared_daemon: Daemon) -> None:
    def ask(*turns: Any) -> dict[str, int]:
        body = request(max_tokens=1, messages=[FIRST, *LATER, *turns])
        usage: dict[str, int] = shared_daemon.client.post("/v1/messages?beta=true", json=body).json()["usage"]
        return usage

    ask()
    again = ask({"role": "assistant", "content": "Plums."}, {"role": "user", "content": "How many?"})
    assert again["cache_read_input_tokens"] > 800
    assert again["input_tokens"] + again["cache_creation_input_tokens"] < 100


def test_the_beta_methods_of_the_client_do_the_same(client: Any) -> None:
    asked = request(
        max_tokens=300, tool_choice={"type": "tool", "name": "Read"}, betas=["context-management-2025-06-27"]
    )
    asked["extra_body"] = {"temperature": asked.pop("temperature")}
    whole = client.beta.messages.create(**asked)
    (call,) = [block for block in whole.content if block.type == "tool_use"]
    Draft202012Validator(READ).validate(call.input)
    with client.beta.messages.stream(**asked) as stream:
        streamed = stream.get_final_message()
    (call,) = [block for block in streamed.content if block.type == "tool_use"]
    Draft202012Validator(READ).validate(call.input)
    *_, last = client.beta.messages.create(**asked, stream=True)
    assert last.type == "message_stop"
    counted = client.beta.messages.count_tokens(model=MODEL, messages=[FIRST], system=SYSTEM, tools=TOOLS)
    assert counted.input_tokens > 700


def test_the_clients_own_loop_runs_tools(client: Any) -> None:
    asked_for = []

    @beta_tool
    def note(kind: Literal["plums", "pears"]) -> str:
        """Keeps a note.

        Args:
            kind: what to keep
        """
        asked_for.append(kind)
        return "kept"

    asked: Any = {"model": MODEL, "max_tokens": 200, "max_iterations": 2, "tools": [note]}
    asked |= {"messages": [{"role": "user", "content": "Note: plums."}], "tool_choice": {"type": "any"}}
    messages = list(client.beta.messages.tool_runner(**asked))
    assert [message.stop_reason for message in messages] == ["tool_use", "tool_use"]
    for stream in client.beta.messages.tool_runner(**asked, stream=True):
        assert stream.get_final_message().stop_reason == "tool_use"
    assert len(asked_for) >= 3
