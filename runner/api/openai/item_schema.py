"""Items of responses and conversations, as clients send them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from runner.api.openai.schema import InputAudio
from runner.api.validation import Body, Ignored, invalid, known, lacks, not_honoured

MOST_ITEMS = 10_000
_ELSEWHERE = lacks("what is kept on somebody else's servers")
Status = Literal["in_progress", "completed", "incomplete"] | None


class _Part(Body):
    prompt_cache_breakpoint: Ignored = None


class InputText(_Part):
    type: Literal["input_text"]
    text: str


class InputImage(_Part):
    """An image, as a data URL."""

    type: Literal["input_image"]
    image_url: str
    detail: Ignored = None
    file_id: Annotated[Any, not_honoured(why=_ELSEWHERE)] = None


class InputSound(Body):
    type: Literal["input_audio"]
    input_audio: InputAudio


class OutputText(Body):
    type: Literal["output_text"]
    text: str
    annotations: Ignored = None
    logprobs: Ignored = None


class Refusal(Body):
    type: Literal["refusal"]
    refusal: str


PartBody = Annotated[
    Annotated[InputText | InputImage | InputSound | OutputText | Refusal, Field(discriminator="type")],
    known("parts", "input_text", "input_image", "input_audio", "output_text", "refusal"),
]
ToolPart = Annotated[
    Annotated[InputText | InputImage, Field(discriminator="type")], known("parts", "input_text", "input_image")
]


def _as_parts(value: object) -> object:
    return [{"type": "input_text", "text": value}] if isinstance(value, str) else value


Parts = Annotated[list[PartBody], BeforeValidator(_as_parts, json_schema_input_type=str | list[PartBody])]
Output = Annotated[list[ToolPart], BeforeValidator(_as_parts, json_schema_input_type=str | list[ToolPart])]


class _Item(Body):
    """What all items have but those that only refer to another."""

    id: str | None = None
    status: Status = None


class MessageBody(_Item):
    type: Literal["message"]
    role: Literal["user", "assistant", "system", "developer"]
    content: Parts
    phase: Ignored = None


class _Call(_Item):
    """What calls of both kinds of tools have."""

    call_id: str
    name: str
    caller: Ignored = None
    namespace: Annotated[Any, not_honoured("")] = None
    async_: Annotated[Any, not_honoured(False)] = Field(None, alias="async")


class FunctionCallBody(_Call):
    type: Literal["function_call"]
    arguments: str
    parsed_arguments: Ignored = None


class CustomCallBody(_Call):
    type: Literal["custom_tool_call"]
    input: str


class _Result(_Item):
    """What the results of both kinds of tools have."""

    output: Output
    caller: Ignored = None


class FunctionOutputBody(_Result):
    type: Literal["function_call_output"]
    call_id: str | None = None
    name: str | None = None
    namespace: Annotated[Any, not_honoured("")] = None


class CustomOutputBody(_Result):
    type: Literal["custom_tool_call_output"]
    call_id: str


class SummaryText(Body):
    type: Literal["summary_text"]
    text: str


class ReasoningText(Body):
    type: Literal["reasoning_text"]
    text: str


class ReasoningBody(_Item):
    type: Literal["reasoning"]
    summary: list[SummaryText] | None = None
    content: list[ReasoningText] | None = None
    encrypted_content: Ignored = None


class ReferenceBody(Body):
    type: Literal["item_reference"]
    id: str


def _with_type(value: object) -> object:
    """Messages and references may leave out what they are."""
    if isinstance(value, dict) and value.get("type") is None:
        rest = {name: one for name, one in value.items() if name != "type"}
        return {"type": "item_reference" if "role" not in rest and "id" in rest else "message", **rest}
    return value


ItemBody = Annotated[
    Annotated[
        MessageBody
        | FunctionCallBody
        | FunctionOutputBody
        | CustomCallBody
        | CustomOutputBody
        | ReasoningBody
        | ReferenceBody,
        Field(discriminator="type"),
    ],
    known(
        "items",
        "message",
        "function_call",
        "function_call_output",
        "custom_tool_call",
        "custom_tool_call_output",
        "reasoning",
        "item_reference",
    ),
    BeforeValidator(_with_type),
]


def _as_items(value: object) -> object:
    if value is not None and not isinstance(value, str | list):
        raise invalid("must be a string or an array of items")
    return [{"type": "message", "role": "user", "content": value}] if isinstance(value, str) else value


Input = Annotated[
    Annotated[list[ItemBody], Field(max_length=MOST_ITEMS)],
    BeforeValidator(_as_items, json_schema_input_type=str | list[ItemBody]),
]
