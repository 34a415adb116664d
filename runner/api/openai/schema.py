"""The OpenAI dialect's request bodies."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from runner.api.openai.shaping import CompletingBody
from runner.api.openai.tools import CalledFunction, FunctionBody, ToolBody, ToolCallBody, ToolChoice, ToolName
from runner.api.sampling import Alternatives
from runner.api.validation import Body, Ignored, IgnoredText, invalid, known, not_honoured

MOST_CHOICES = 128
_LONGEST = 2**31 - 1
Count = Annotated[int, Field(ge=1, le=MOST_CHOICES)]


class _Part(Body):
    prompt_cache_breakpoint: Ignored = None


class TextPart(_Part):
    type: Literal["text"]
    text: str


def _read_image_url(value: object) -> object:
    return {"url": value} if isinstance(value, str) else value


class ImageUrl(Body):
    url: str
    detail: Ignored = None


class ImagePart(_Part):
    """An image, as a data URL."""

    type: Literal["image_url"]
    image_url: Annotated[ImageUrl, BeforeValidator(_read_image_url, json_schema_input_type=str | ImageUrl)]


class InputAudio(Body):
    data: str
    format: Literal["wav", "mp3"]


class AudioPart(_Part):
    type: Literal["input_audio"]
    input_audio: InputAudio


ContentPart = Annotated[
    Annotated[TextPart | ImagePart | AudioPart, Field(discriminator="type")],
    known("parts", "text", "image_url", "input_audio"),
]


def _as_parts(value: object) -> object:
    if isinstance(value, str):
        return [{"type": "text", "text": value}]
    if value is None or isinstance(value, list):
        return value
    raise invalid("must be a string or an array of parts")


Content = Annotated[
    list[ContentPart] | None,
    BeforeValidator(_as_parts, json_schema_input_type=str | list[ContentPart] | None),
]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None


class ChatMessage(Body):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    """`function` is the older name of `tool`."""
    content: Content = None
    name: str | None = None
    refusal: Annotated[Any, not_honoured("")] = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    annotations: Annotated[Any, not_honoured([])] = None
    audio: Annotated[Any, not_honoured()] = None
    function_call: CalledFunction | None = None
    tool_calls: list[ToolCallBody] | None = None
    tool_call_id: str | None = None


class JsonSchema(Body):
    """A schema for the answer; it is kept to whether `strict` says so or not."""

    name: IgnoredText
    description: Ignored = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class ResponseFormat(Body):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class Reasoning(Body):
    effort: Effort = None


class ChatCompletionBody(CompletingBody):
    model: str = ""
    messages: list[ChatMessage]

    max_tokens: Annotated[int, Field(ge=1, le=_LONGEST)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=_LONGEST)] | None = None
    n: Count | None = None
    response_format: ResponseFormat | None = None
    logprobs: bool | None = None
    top_logprobs: Alternatives = None

    reasoning_effort: Effort = None
    reasoning: Reasoning | None = None

    tools: list[ToolBody] | None = None
    tool_choice: ToolChoice = None
    parallel_tool_calls: bool | None = None
    functions: list[FunctionBody] | None = None
    """The older form of `tools`; the answer is then in the older shape too."""
    function_call: Literal["none", "auto"] | ToolName | None = None
    modalities: Annotated[Any, not_honoured(["text"])] = None
    audio: Annotated[Any, not_honoured()] = None
    verbosity: Annotated[Any, not_honoured("medium")] = None
    web_search_options: Annotated[Any, not_honoured()] = None
    moderation: Annotated[Any, not_honoured()] = None
    debug_render_only: Annotated[Any, not_honoured(False)] = Field(None, alias="_debug_render_only")

    prediction: Ignored = None
    user: Ignored = None
    metadata: Ignored = None
    store: Ignored = None
    service_tier: Ignored = None
    safety_identifier: Ignored = None
    prompt_cache_key: Ignored = None
    prompt_cache_retention: Ignored = None
    prompt_cache_options: Ignored = None
