"""Custom tools and the older shape of functions, by the official OpenAI client with a real model."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.end_to_end.conftest import MODEL, TIMEOUT, Daemon

QUESTION: Any = [{"role": "user", "content": "Tell the code of the door."}]
LARK = 'start: LETTER~3 "\\n" ("0".."9")~2 "\\""\n%import common.UCASE_LETTER -> LETTER\n'
CODE = re.compile(r'[A-Z]{3}\n[0-9]{2}"')
CUSTOM: Any = {
    "type": "custom",
    "custom": {
        "name": "open_door",
        "description": "Opens a door by its code.",
        "format": {"type": "grammar", "grammar": {"syntax": "lark", "definition": LARK}},
    },
}
FREE: Any = {"type": "custom", "custom": {"name": "open_door", "description": "Opens a door by its code."}}
FUNCTION: Any = {
    "name": "add",
    "parameters": {
        "type": "object",
        "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 9}},
        "required": ["a"],
        "additionalProperties": False,
    },
}
NAMED: Any = {"type": "custom", "custom": {"name": "open_door"}}


@pytest.fixture
def client(shared_daemon: Daemon) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{shared_daemon.url}/v1", api_key="any", max_retries=0, timeout=TIMEOUT) as client:
        yield client


def test_a_custom_tools_input_follows_its_grammar(client: Any) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=QUESTION, tools=[CUSTOM], tool_choice=NAMED, max_tokens=60
    )
    assert answer.choices[0].finish_reason == "tool_calls"
    call = answer.choices[0].message.tool_calls[0]
    assert (call.type, call.custom.name) == ("custom", "open_door")
    assert CODE.fullmatch(call.custom.input)

    talk = [*QUESTION, answer.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "open"}]
    after = client.chat.completions.create(model=MODEL, messages=talk, tools=[CUSTOM], tool_choice="none", max_tokens=4)
    assert after.choices[0].message.tool_calls is None


def test_a_streamed_custom_call_adds_up(client: Any) -> None:
    chunks = client.chat.completions.create(
        model=MODEL, messages=QUESTION, tools=[CUSTOM], tool_choice=NAMED, max_tokens=60, stream=True
    )
    pieces = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()]
    assert (pieces[0].type, pieces[0].custom["name"]) == ("custom", "open_door")
    assert len(pieces) > 2
    assert CODE.fullmatch("".join(piece.custom["input"] for piece in pieces))


def test_free_text_is_told_as_text(client: Any) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=QUESTION, tools=[FREE], tool_choice="required", max_tokens=30, temperature=0
    )
    call = answer.choices[0].message.tool_calls[0]
    assert call.custom.name == "open_door"
    assert not call.custom.input.startswith("{")


def test_a_format_that_cannot_be_kept_to_is_refused(client: Any) -> None:
    for syntax, definition in (("lark", 'start: "(" start ")" | "x"'), ("regex", "(?=a)b")):
        tool = {"type": "custom", "custom": {"name": "f", "format": {"type": "grammar", "grammar": {
            "syntax": syntax, "definition": definition}}}}  # fmt: skip
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(model=MODEL, messages=QUESTION, tools=[tool])
        assert (caught.value.code, caught.value.param) == ("constraint_invalid", "tools[0].custom.format")


def test_responses_tell_custom_calls_as_items_of_their_own(client: Any) -> None:
    tool: Any = {
        "type": "custom",
        "name": "open_door",
        "format": {"type": "grammar", "syntax": "lark", "definition": LARK},
    }
    with client.responses.stream(
        model=MODEL, input="The code?", tools=[tool], tool_choice={"type": "custom", "name": "open_door"}
    ) as stream:
        events = list(stream)
        final = stream.get_final_response()
    call = final.output[-1]
    assert (call.type, call.name) == ("custom_tool_call", "open_door")
    assert CODE.fullmatch(call.input)
    deltas = [event.delta for event in events if event.type == "response.custom_tool_call_input.delta"]
    done = [event.input for event in events if event.type == "response.custom_tool_call_input.done"]
    assert ["".join(deltas)] == done == [call.input]
    assert final.tools[0].format.definition == LARK

    output: Any = [{"type": "custom_tool_call_output", "call_id": call.call_id, "output": "open"}]
    after = client.responses.create(model=MODEL, previous_response_id=final.id, input=output, max_output_tokens=16)
    items = client.responses.input_items.list(after.id, order="asc").data
    assert [item.type for item in items[-2:]] == ["custom_tool_call", "custom_tool_call_output"]


def test_functions_are_called_in_their_own_older_shape(client: Any) -> None:
    arguments: Any = {
        "model": MODEL, "messages": QUESTION, "functions": [FUNCTION], "function_call": {"name": "add"},
        "max_tokens": 40, "temperature": 0,
    }  # fmt: skip
    choice = client.chat.completions.create(**arguments).choices[0]
    assert (choice.finish_reason, choice.message.tool_calls) == ("function_call", None)
    assert choice.message.function_call.name == "add"
    assert 0 <= json.loads(choice.message.function_call.arguments)["a"] <= 9

    chunks = list(client.chat.completions.create(**arguments, stream=True))
    calls = [chunk.choices[0].delta.function_call for chunk in chunks if chunk.choices[0].delta.function_call]
    assert calls[0].name == "add"
    assert 0 <= json.loads("".join(call.arguments or "" for call in calls))["a"] <= 9
    assert chunks[-1].choices[0].finish_reason == "function_call"

    talk = [*QUESTION, choice.message, {"role": "function", "name": "add", "content": "7"}]
    answer = client.chat.completions.create(
        model=MODEL, messages=talk, functions=[FUNCTION], function_call="none", max_tokens=4
    )
    assert answer.choices[0].message.function_call is None
    assert answer.usage.prompt_tokens > 10
