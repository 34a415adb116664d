"""Everything that OpenAI's dialect tells is of the official client's types, and its parts agree with one another."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.conversations import Conversation, ConversationItem
from openai.types.responses import Response, ResponseItem, ResponseStreamEvent
from pydantic import TypeAdapter

from runner.chat.types import ChatEvent, Failed, FinishReason, ScoredToken, TextDelta, ThinkingDelta, ToolCallDelta
from tests.fakes import FakeModel, FakeStore, FakeSupervisor, finished
from tests.runner.api.serving import FakeDaemon

STREAM_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
ITEM: TypeAdapter[Any] = TypeAdapter(ResponseItem)
CONVERSATION_ITEM: TypeAdapter[Any] = TypeAdapter(ConversationItem)

TOKENS = (
    ScoredToken(b"Hi", -0.5, ((b"Hi", -0.5), (b"\xff", -1.0))),
    ScoredToken(b"\xf0\x9f", -0.25, ((b"\xfe", -0.1),)),
)
SCORED = TextDelta("Hi", TOKENS)
THOUGHTS = [ThinkingDelta("Hm, "), ThinkingDelta("two.")]
CALLS = [
    ToolCallDelta(0, "call_1", "f", '{"a":'),
    ToolCallDelta(0, "", "", " 1}"),
    ToolCallDelta(1, "call_2", "g", '{"input": "x'),
    ToolCallDelta(1, "", "", 'y"}'),
]
CUT = finished(reason=FinishReason.LENGTH)
CALLED = finished(reason=FinishReason.TOOL_CALLS)
TEXTS = [TextDelta("Hel"), TextDelta("lo")]
SCRIPTS: dict[str, list[ChatEvent]] = {
    "nothing": [finished()],
    "text": [*TEXTS, finished()],
    "scored text": [SCORED, SCORED, finished()],
    "thoughts and text": [*THOUGHTS, *TEXTS, finished()],
    "thoughts that are cut off": [*THOUGHTS, CUT],
    "text that is cut off": [*TEXTS, CUT],
    "thoughts, text and calls": [*THOUGHTS, *TEXTS, *CALLS, CALLED],
    "a call that is cut off": [CALLS[0], CUT],
    "text between calls": [*CALLS[:2], TextDelta("And"), CALLED],
    "a failure": [Failed("engine_crashed", "It ended.")],
    "text and a failure": [*THOUGHTS, *TEXTS, Failed("engine_crashed", "It ended.")],
    "a call and a failure": [*CALLS[:1], Failed("engine_crashed", "It ended.")],
}
FUNCTION = {"type": "object", "properties": {"a": {"type": "integer"}}}
RESPONSE_TOOLS = [{"type": "function", "name": "f", "parameters": FUNCTION}, {"type": "custom", "name": "g"}]
# The types of chunks know no custom calls, which chats do stream; so both are functions there.
CHAT_TOOLS = [{"type": "function", "function": {"name": name}} for name in ("f", "g")]
RESPONSE = {"model": "m", "input": "Hello", "tools": RESPONSE_TOOLS}
CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hello"}], "tools": CHAT_TOOLS}
scripts = pytest.mark.parametrize("script", SCRIPTS.values(), ids=list(SCRIPTS))


def daemon(script: Sequence[ChatEvent]) -> FakeDaemon:
    return FakeDaemon(FakeSupervisor(script), FakeStore(FakeModel(can=("completion", "tools", "thinking"))))


def records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: {")]


def assert_agreeing(events: list[dict[str, Any]]) -> dict[str, Any]:
    """Numbers, places and ids of a stream are those of its last object, which is given back."""
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    last: dict[str, Any] = [event["response"] for event in events if "response" in event][-1]
    assert {event["response"]["id"] for event in events if "response" in event} == {last["id"]}
    added = [event for event in events if event["type"] == "response.output_item.added"]
    done = [event for event in events if event["type"] == "response.output_item.done"]
    assert [event["output_index"] for event in added] == list(range(len(added)))
    assert [event["item"] for event in done] == last["output"][: len(done)], "what is done does not change"
    assert [event["item"]["id"] for event in added] == [item["id"] for item in last["output"]]
    for event in events:
        if "item_id" in event:
            assert last["output"][event["output_index"]]["id"] == event["item_id"]
            assert event.get("content_index", 0) == 0
    for item in last["output"]:
        assert pieces(events, item["id"]) == content(item)
    return last


def pieces(events: list[dict[str, Any]], item_id: str) -> str:
    return "".join(str(event["delta"]) for event in events if event.get("item_id") == item_id and "delta" in event)


def content(item: dict[str, Any]) -> str:
    told = item.get("arguments", item.get("input"))
    return str(told) if told is not None else "".join(part["text"] for part in item["content"])


@scripts
async def test_events_of_a_response_are_of_the_types_and_agree(script: list[ChatEvent]) -> None:
    body = RESPONSE | {"stream": True, "include": ["message.output_text.logprobs"]}
    async with daemon(script).client() as client:
        answer = await client.post("/v1/responses", json=body)
        if answer.status_code != 200:
            assert len(script) == 1 and isinstance(script[0], Failed)
            return
        events = records(answer.text)
        last = assert_agreeing(events)
        kept = (await client.get(f"/v1/responses/{last['id']}")).json()
    for event in events:
        STREAM_EVENT.validate_python(event)
    assert kept == last
    assert last["status"] == end_of(script)
    for item in last["output"]:
        ITEM.validate_python(item)


@scripts
async def test_a_response_of_the_background_tells_the_same_and_can_be_told_again(script: list[ChatEvent]) -> None:
    async with daemon(script).client() as client:
        events = records(
            (await client.post("/v1/responses", json=RESPONSE | {"stream": True, "background": True})).text
        )
        last = assert_agreeing(events)
        again = records((await client.get(f"/v1/responses/{last['id']}", params={"stream": "true"})).text)
    for event in events:
        STREAM_EVENT.validate_python(event)
    assert again == events
    assert last["status"] == end_of(script)


@scripts
async def test_a_whole_response_is_what_its_stream_ends_with(script: list[ChatEvent]) -> None:
    if isinstance(script[-1], Failed):
        return
    async with daemon(script).client() as client:
        whole = (await client.post("/v1/responses", json=RESPONSE)).json()
        last = assert_agreeing(records((await client.post("/v1/responses", json=RESPONSE | {"stream": True})).text))
    Response.model_validate(whole)
    assert sorted(map(unnamed, whole["output"]), key=str) == sorted(map(unnamed, last["output"]), key=str)
    assert (whole["status"], whole["incomplete_details"]) == (last["status"], last["incomplete_details"])
    assert whole["usage"] == last["usage"]


@scripts
async def test_items_of_a_conversation_are_of_the_types(script: list[ChatEvent]) -> None:
    async with daemon(script).client() as client:
        made = (await client.post("/v1/conversations", json={"metadata": {"a": "b"}})).json()
        Conversation.model_validate(made)
        sent = [
            {"role": "developer", "content": "Be brief."},
            {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "1", "output": "2"},
            {"type": "custom_tool_call", "call_id": "2", "name": "g", "input": "x"},
            {"type": "custom_tool_call_output", "call_id": "2", "output": "2"},
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]},
            {"role": "user", "content": "Hello"},
        ]
        body = RESPONSE | {"conversation": made["id"], "input": sent}
        is_kept = (await client.post("/v1/responses", json=body)).status_code == 200
        items = (await client.get(f"/v1/conversations/{made['id']}/items", params={"order": "asc"})).json()["data"]
    assert len(items) >= len(sent) if is_kept else items == []
    for item in items:
        CONVERSATION_ITEM.validate_python(item)


def end_of(script: list[ChatEvent]) -> str:
    if isinstance(script[-1], Failed):
        return "failed"
    return "incomplete" if script[-1] is CUT else "completed"


def unnamed(item: dict[str, Any]) -> dict[str, Any]:
    """An item without what is made anew each time."""
    return {name: value for name, value in item.items() if name != "id"}


@scripts
@pytest.mark.parametrize("count", [1, 2])
async def test_chunks_of_a_chat_are_of_the_types_and_add_up(script: list[ChatEvent], count: int) -> None:
    body = CHAT | {"n": count, "logprobs": True, "stream_options": {"include_usage": True}}
    async with daemon(script).client() as client:
        whole = await client.post("/v1/chat/completions", json=body)
        streamed = await client.post("/v1/chat/completions", json=body | {"stream": True})
    if isinstance(script[-1], Failed):
        assert whole.status_code == 500
        assert "[DONE]" not in streamed.text
        return
    answer = ChatCompletion.model_validate(whole.json(), strict=True)
    chunks = [ChatCompletionChunk.model_validate(chunk) for chunk in records(streamed.text)]
    assert len({chunk.id for chunk in chunks}) == 1
    assert [chunk.usage is None for chunk in chunks] == [True] * (len(chunks) - 1) + [False]
    assert all('"usage"' in line for line in streamed.text.splitlines() if line.startswith("data: {"))
    assert chunks[-1].usage == answer.usage and chunks[-1].choices == []
    assert [choice.index for choice in answer.choices] == list(range(count))
    for choice in answer.choices:
        told = [one for chunk in chunks for one in chunk.choices if one.index == choice.index]
        assert [one.delta.role for one in told] == ["assistant"] + [None] * (len(told) - 1)
        assert [one.finish_reason for one in told] == [None] * (len(told) - 1) + [choice.finish_reason]
        assert "".join(one.delta.content or "" for one in told) == (choice.message.content or "")
        scored = [token for one in told if one.logprobs for token in one.logprobs.content or ()]
        assert choice.logprobs is not None and scored == choice.logprobs.content
        begun = [call for one in told for call in one.delta.tool_calls or () if call.id]
        calls = choice.message.tool_calls or []
        assert [(call.index, call.id) for call in begun] == [(place, call.id) for place, call in enumerate(calls)]


@pytest.mark.parametrize("name", ["nothing", "text", "scored text", "text that is cut off"])
async def test_text_completions_are_of_the_types_and_add_up(name: str) -> None:
    body = {"model": "m", "prompt": ["a", "b"], "n": 2, "logprobs": 1, "stream_options": {"include_usage": True}}
    async with daemon(SCRIPTS[name]).client() as client:
        answer = Completion.model_validate((await client.post("/v1/completions", json=body)).json())
        streamed = (await client.post("/v1/completions", json=body | {"stream": True})).text
    chunks = records(streamed)
    assert chunks[-1]["usage"] == answer.usage.model_dump(exclude_none=True) if answer.usage else False
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    for choice in answer.choices:
        told = [one for chunk in chunks for one in chunk["choices"] if one["index"] == choice.index]
        assert "".join(one["text"] for one in told) == choice.text
        assert told[-1]["finish_reason"] == choice.finish_reason
        offsets = [offset for one in told if one["logprobs"] for offset in one["logprobs"]["text_offset"]]
        assert choice.logprobs is not None and offsets == choice.logprobs.text_offset


async def test_tokens_that_are_no_text_differ_and_the_one_that_was_taken_is_told() -> None:
    async with daemon(SCRIPTS["scored text"]).client() as client:
        answer = await client.post("/v1/completions", json={"model": "m", "prompt": "a", "logprobs": 2})
    told = answer.json()["choices"][0]["logprobs"]
    assert told["tokens"][:2] == ["Hi", "bytes:\\xf0\\x9f"]
    assert told["top_logprobs"][:2] == [
        {"Hi": -0.5, "bytes:\\xff": -1.0},
        {"bytes:\\xfe": -0.1, "bytes:\\xf0\\x9f": -0.25},
    ]
