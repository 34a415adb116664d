"""Items of responses and conversations, as clients send them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from runner.api.openai.schema import InputAudio
from runner.api.validation import Body, Ignored, invalid, lacks, not_honoured, unsupported

MOST_ITEMS = 10_000
_ELSEWHERE = lacks("what is kept on somebody else's servers")
Status = Literal["in_progress", "completed", "incomplete"] | None


class InputText(Body):
    type: Literal["input_text"]
    text: str
    prompt_cache_breakpoint: Ignored = None


class InputImage(Body):
    """An image, as a data URL."""

    type: Literal["input_image"]
    image_url: str
    detail: Ignored = None
    file_id: Annotated[Any, not_honoured(why=_ELSEWHERE)] = None
    prompt_cache_breakpoint: Ignored = None


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


def _known(*kinds: str) -> BeforeValidator:
    """Says of kinds that are not known here that they are not supported, and not that they are wrong."""

    def check(value: object) -> object:
        kind = value.get("type") if isinstance(value, dict) else None
        if isinstance(kind, str) and kind not in kinds:
            raise unsupported(lacks(f"the type {kind[:50]!r}"), ".type")
        return value

    return BeforeValidator(check)


PartBody = Annotated[
    Annotated[InputText | InputImage | InputSound | OutputText | Refusal, Field(discriminator="type")],
    _known("input_text", "input_image", "input_audio", "output_text", "refusal"),
]
ToolPart = Annotated[
    Annotated[InputText | InputImage, Field(discriminator="type")], _known("input_text", "input_image")
]


def _as_parts(value: object) -> object:
    return [{"type": "input_text", "text": value}] if isinstance(value, str) else value


Parts = Annotated[list[PartBody], BeforeValidator(_as_parts, json_schema_input_type=str | list[PartBody])]
Output = Annotated[list[ToolPart], BeforeValidator(_as_parts, json_schema_input_type=str | list[ToolPart])]


class MessageBody(Body):
    type: Literal["message"]
    role: Literal["user", "assistant", "system", "developer"]
    content: Parts
    id: str | None = None
    status: Status = None
    phase: Ignored = None


class FunctionCallBody(Body):
    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str
    id: str | None = None
    status: Status = None
    caller: Ignored = None
    namespace: Annotated[Any, not_honoured("")] = None
    async_: Annotated[Any, not_honoured(False)] = Field(None, alias="async")
    parsed_arguments: Ignored = None


class FunctionOutputBody(Body):
    type: Literal["function_call_output"]
    output: Output
    call_id: str | None = None
    name: str | None = None
    id: str | None = None
    status: Status = None
    caller: Ignored = None
    namespace: Annotated[Any, not_honoured("")] = None


class CustomCallBody(Body):
    type: Literal["custom_tool_call"]
    call_id: str
    name: str
    input: str
    id: str | None = None
    status: Status = None
    caller: Ignored = None
    namespace: Annotated[Any, not_honoured("")] = None
    async_: Annotated[Any, not_honoured(False)] = Field(None, alias="async")


class CustomOutputBody(Body):
    type: Literal["custom_tool_call_output"]
    call_id: str
    output: Output
    id: str | None = None
    status: Status = None
    caller: Ignored = None


class SummaryText(Body):
    type: Literal["summary_text"]
    text: str


class ReasoningText(Body):
    type: Literal["reasoning_text"]
    text: str


class ReasoningBody(Body):
    type: Literal["reasoning"]
    summary: list[SummaryText] | None = None
    content: list[ReasoningText] | None = None
    id: str | None = None
    status: Status = None
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
    _known(
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
