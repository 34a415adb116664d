"""What becomes of each field within the fields of OpenAI's requests: each is taken out once, and something changes."""

from __future__ import annotations

import copy
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from runner.api.openai.item_schema import ReferenceBody
from runner.api.openai.responses_schema import ConversationName, ResponseBody
from runner.api.openai.schema import ChatCompletionBody
from runner.api.validation import Body, NotHonoured, validate
from tests.compatibility.matrix import Asker, Outcome, Row
from tests.compatibility.samples import HELLO, IMAGE, OPENAI_CHAT, OPENAI_RESPONSES, SCHEMA, Method

IMAGE_URL = f"data:image/png;base64,{IMAGE}"
SOUND = {"data": "UklGRgAA", "format": "wav"}
BREAK = {"prompt_cache_breakpoint": {"mode": "explicit"}}
GRAMMAR = {"syntax": "regex", "definition": "[a-z]+"}

_CHAT_TOOLS: dict[str, Any] = {
    "messages": HELLO,
    "tools": [
        {"type": "function", "function": {"name": "f", "description": "F.", "parameters": SCHEMA, "strict": True}},
        {
            "type": "custom",
            "custom": {"name": "g", "description": "G.", "format": {"type": "grammar", "grammar": GRAMMAR}},
        },
    ],
}
_RESPONSE_TOOLS: dict[str, Any] = {
    "input": "Hello",
    "tools": [
        {
            "type": "function",
            "name": "f",
            "description": "F.",
            "parameters": SCHEMA,
            "strict": True,
            "output_schema": {},
        },
        {"type": "custom", "name": "g", "description": "G.", "format": {"type": "grammar", **GRAMMAR}},
    ],
}
_TALK: list[dict[str, Any]] = [
    {
        "role": "user",
        "name": "ann",
        "content": [
            {"type": "text", "text": "Hi", **BREAK},
            {"type": "image_url", "image_url": {"url": IMAGE_URL, "detail": "low"}, **BREAK},
            {"type": "input_audio", "input_audio": SOUND, **BREAK},
        ],
    },
    {"role": "assistant", "content": "Well.", "reasoning": "Hm."},
    {
        "role": "assistant",
        "content": "Well.",
        "reasoning_content": "Hm.",
        "tool_calls": [
            {"id": "1", "type": "function", "index": 0, "function": {"name": "f", "arguments": '{"a": 1}'}},
            {"id": "2", "type": "custom", "index": 1, "custom": {"name": "g", "input": "x"}},
        ],
    },
    {"role": "tool", "tool_call_id": "1", "content": "2"},
    {"role": "assistant", "content": "And", "function_call": {"name": "f", "arguments": '{"a": 1}'}},
    {"role": "function", "name": "f", "content": "2"},
]
_ITEM = {"status": "completed"}
_ITEMS: list[dict[str, Any]] = [
    {
        "type": "message",
        "role": "user",
        "id": "msg_1",
        **_ITEM,
        "phase": "commentary",
        "content": [
            {"type": "input_text", "text": "Hi", **BREAK},
            {"type": "input_image", "image_url": IMAGE_URL, "detail": "low", **BREAK},
            {"type": "input_audio", "input_audio": SOUND},
        ],
    },
    {
        "type": "reasoning",
        "id": "rs_1",
        **_ITEM,
        "summary": [{"type": "summary_text", "text": "In short."}],
        "content": [{"type": "reasoning_text", "text": "Hm."}],
        "encrypted_content": "x",
    },
    {
        "type": "message",
        "role": "assistant",
        "content": [
            {"type": "output_text", "text": "Well.", "annotations": [], "logprobs": []},
            {"type": "refusal", "refusal": "No."},
        ],
    },
    {
        "type": "function_call",
        "id": "fc_1",
        "call_id": "1",
        "name": "f",
        "arguments": '{"a": 1}',
        "status": "incomplete",
        "caller": {"type": "direct"},
        "parsed_arguments": {},
    },
    {
        "type": "function_call_output",
        "id": "fco_1",
        **_ITEM,
        "call_id": "1",
        "name": "f",
        "output": [{"type": "input_text", "text": "2"}, {"type": "input_image", "image_url": IMAGE_URL}],
        "caller": {"type": "direct"},
    },
    {
        "type": "custom_tool_call",
        "id": "ctc_1",
        **_ITEM,
        "call_id": "2",
        "name": "g",
        "input": "x",
        "caller": {"type": "direct"},
    },
    {
        "type": "custom_tool_call_output",
        "id": "ctco_1",
        **_ITEM,
        "call_id": "2",
        "output": "y",
        "caller": {"type": "direct"},
    },
]
_CHAT_FORMAT = {"name": "a", "description": "A.", "schema": SCHEMA, "strict": True}
_RICH: tuple[tuple[Method, type[Body], tuple[dict[str, Any], ...]], ...] = (
    (
        OPENAI_CHAT,
        ChatCompletionBody,
        (
            {"messages": _TALK},
            _CHAT_TOOLS | {"tool_choice": {"type": "function", "function": {"name": "f"}}},
            _CHAT_TOOLS | {"tool_choice": {"type": "custom", "custom": {"name": "g"}}},
            _CHAT_TOOLS
            | {
                "tool_choice": {
                    "type": "allowed_tools",
                    "allowed_tools": {"mode": "required", "tools": [{"type": "custom", "custom": {"name": "g"}}]},
                }
            },
            {
                "messages": HELLO,
                "functions": [{"name": "f", "description": "F.", "parameters": SCHEMA, "strict": True}],
            },
            {"messages": HELLO, "functions": [{"name": "f"}], "function_call": {"name": "f"}},
            {"messages": HELLO, "response_format": {"type": "json_schema", "json_schema": _CHAT_FORMAT}},
            {"messages": HELLO, "grammar": {"type": "regex", "value": "[a-z]+"}, "reasoning": {"effort": "high"}},
            {
                "messages": HELLO,
                "stream": True,
                "stream_options": {"include_usage": True, "include_obfuscation": False},
            },
        ),
    ),
    (
        OPENAI_RESPONSES,
        ResponseBody,
        (
            {"input": _ITEMS},
            _RESPONSE_TOOLS | {"tool_choice": {"type": "function", "name": "f"}},
            _RESPONSE_TOOLS
            | {
                "tool_choice": {
                    "type": "allowed_tools",
                    "mode": "required",
                    "tools": [{"type": "custom", "name": "g"}],
                }
            },
            {"input": "Hello", "text": {"format": {"type": "json_schema", **_CHAT_FORMAT}}},
            {"input": "Hello", "grammar": {"type": "regex", "value": "[a-z]+"}},
            {
                "input": "Hello",
                "reasoning": {"effort": "high", "summary": "auto", "generate_summary": "auto", "context": "auto"},
                "stream": True,
                "stream_options": {"include_obfuscation": False},
            },
        ),
    ),
)
"""Bodies in which every field within another is set that can be."""

_MET: frozenset[str] = frozenset({"response_format.json_schema.strict", "text.format.strict"})
"""What is done in any case: answers are kept to a schema."""
_ELSEWHERE: frozenset[tuple[type[BaseModel], str]] = frozenset(
    {(ReferenceBody, "type"), (ReferenceBody, "id"), (ConversationName, "id")}
)
"""What refers to something that was kept before; other tests send it."""


async def nested_rows() -> list[tuple[Method, list[Row]]]:
    """For each method a row for every field within another."""
    return [(method, [row async for row in _rows(method, bodies)]) for method, _, bodies in _RICH]


def untried_fields() -> list[str]:
    """Fields within others that none of the bodies above sets, though they may be set."""
    missing = []
    for method, root, bodies in _RICH:
        tried: dict[type[BaseModel], set[str]] = {}
        for body in bodies:
            for one in _objects(validate(root, method.base | body)):
                tried.setdefault(type(one), set()).update(one.model_fields_set)
        for model in _models(root) - {root}:
            for name, field in model.model_fields.items():
                is_refused = any(isinstance(mark, NotHonoured) for mark in field.metadata)
                if not is_refused and name not in tried.get(model, ()) and (model, name) not in _ELSEWHERE:
                    missing.append(f"{method.name}: {model.__name__}.{name}")
    return missing


async def _rows(method: Method, bodies: tuple[dict[str, Any], ...]) -> typing.AsyncIterator[Row]:
    seen: dict[str, Row] = {}
    async with Asker(method, also=("vision", "audio")) as asker:
        for added in bodies:
            rich = method.base | added
            whole = await asker.ask(rich)
            assert whole.status == 200, whole.told
            for place in _places(rich):
                path = _written(place)
                changed = await asker.ask(_without(rich, place))
                if changed.status != 200:
                    changed = await asker.ask(_changed(rich, place))
                has_effect = changed.status != 200 or changed.told != whole.told or path in _MET
                outcome = Outcome.HONOURED if has_effect else Outcome.DROPPED
                if path in whole.ignored:
                    outcome = Outcome.IGNORED
                row = Row(path, "", outcome)
                # One that has an effect anywhere has one.
                if seen.get(path, row).outcome in (row.outcome, Outcome.DROPPED):
                    seen[path] = row
    for path in sorted(seen):
        yield seen[path]


_FREE = frozenset({"parameters", "schema", "prompt_cache_breakpoint", "caller", "parsed_arguments", "output_schema"})
"""Objects whose fields are somebody else's."""


def _places(value: object, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where fields within fields stand."""
    if isinstance(value, dict):
        for name, one in value.items():
            if place:
                yield (*place, name)
            if name not in _FREE:
                yield from _places(one, (*place, name))
    elif isinstance(value, list):
        for number, one in enumerate(value):
            yield from _places(one, (*place, number))


def _written(place: tuple[str | int, ...]) -> str:
    return "".join("[]" if isinstance(step, int) else f".{step}" for step in place).removeprefix(".")


def _without(body: dict[str, Any], place: tuple[str | int, ...]) -> dict[str, Any]:
    made = copy.deepcopy(body)
    del _holder(made, place)[place[-1]]
    return made


def _changed(body: dict[str, Any], place: tuple[str | int, ...]) -> dict[str, Any]:
    """The body with another value there, for a field that has to be."""
    made = copy.deepcopy(body)
    holder = _holder(made, place)
    value = holder[place[-1]]
    holder[place[-1]] = value + "x" if isinstance(value, str) else None
    return made


def _holder(body: Any, place: tuple[str | int, ...]) -> Any:
    for step in place[:-1]:
        body = body[step]
    return body


def _objects(value: object) -> Iterator[BaseModel]:
    if isinstance(value, BaseModel):
        yield value
        for name in value.model_fields_set:
            yield from _objects(getattr(value, name))
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _objects(one)


def _models(annotation: Any) -> set[type[BaseModel]]:
    """All that a type is made of."""
    found: set[type[BaseModel]] = set()
    waiting = [annotation]
    while waiting:
        one = waiting.pop()
        if isinstance(one, type) and issubclass(one, BaseModel):
            if one not in found:
                found.add(one)
                waiting += [field.annotation for field in one.model_fields.values()]
        else:
            waiting += typing.get_args(one)
    return found
