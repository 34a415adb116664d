"""The Anthropic dialect's request bodies."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from registry.parameters import MAX_STOP_CHARACTERS, MAX_STOPS
from runner.api.validation import Body, Ignored, known, lacks, not_honoured, unsupported

_LONGEST = 2**31 - 1
StopString = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARACTERS)]
_NOTHING_REMOTE = lacks("anything that runs on somebody else's servers")


class TextBlock(Body):
    type: Literal["text"]
    text: str
    cache_control: Ignored = None
    citations: Ignored = None


def _sent_along(value: object) -> object:
    if value in ("url", "file", "content"):
        raise unsupported(lacks(f"sources of the type {value!r}: what is meant has to be sent along"))
    return value


class ImageSource(Body):
    type: Annotated[Literal["base64"], BeforeValidator(_sent_along)]
    media_type: Literal["image/jpeg", "image/png", "image/gif", "image/webp"]
    data: str


class ImageBlock(Body):
    type: Literal["image"]
    source: ImageSource
    cache_control: Ignored = None
    transformations: Annotated[Any, not_honoured()] = None


class DocumentSource(Body):
    type: Annotated[Literal["text"], BeforeValidator(_sent_along)]
    media_type: Literal["text/plain"] | None = None
    data: str


class DocumentBlock(Body):
    """A text that belongs to a message; other kinds of documents are refused."""

    type: Literal["document"]
    source: DocumentSource
    title: str | None = None
    context: str | None = None
    cache_control: Ignored = None
    citations: Ignored = None


class ToolUseBlock(Body):
    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]
    cache_control: Ignored = None
    caller: Ignored = None
    toolset_name: Annotated[Any, not_honoured()] = None


class ToolResultBlock(Body):
    type: Literal["tool_result"]
    tool_use_id: str
    content: Blocks | None = None
    is_error: bool | None = None
    cache_control: Ignored = None
    toolset_name: Annotated[Any, not_honoured()] = None


class ThinkingBlock(Body):
    type: Literal["thinking"]
    thinking: str
    signature: Ignored = None


class RedactedThinkingBlock(Body):
    type: Literal["redacted_thinking"]
    data: Ignored = None


Block = Annotated[
    Annotated[
        TextBlock | ImageBlock | DocumentBlock | ToolUseBlock | ToolResultBlock | ThinkingBlock | RedactedThinkingBlock,
        Field(discriminator="type"),
    ],
    known("blocks", "text", "image", "document", "tool_use", "tool_result", "thinking", "redacted_thinking"),
]


def _as_blocks(value: object) -> object:
    return [{"type": "text", "text": value}] if isinstance(value, str) else value


Blocks = Annotated[
    list[Block],
    BeforeValidator(_as_blocks, json_schema_input_type=str | list[Block]),
]
TextBlocks = Annotated[list[TextBlock], BeforeValidator(_as_blocks, json_schema_input_type=str | list[TextBlock])]


class TurnBody(Body):
    """One turn of a conversation."""

    role: Literal["user", "assistant", "system"]
    content: Blocks


def _own_tool(value: object) -> object:
    if value not in (None, "custom"):
        raise unsupported(lacks("tools other than those of the client's own"))
    return value


class ToolBody(Body):
    name: str
    type: Annotated[Literal["custom"] | None, BeforeValidator(_own_tool)] = None
    description: str | None = None
    input_schema: dict[str, Any]
    strict: Ignored = None
    cache_control: Ignored = None
    allowed_callers: Ignored = None
    defer_loading: Annotated[Any, not_honoured(False)] = None
    eager_input_streaming: Ignored = None
    input_examples: Ignored = None


class ToolChoiceBody(Body):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class ThinkingBody(Body):
    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: Ignored = None
    display: Ignored = None


class FormatBody(Body):
    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class OutputBody(Body):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: FormatBody | None = None


class PromptBody(Body):
    """What decides a prompt: the part that counting has in common with answering."""

    model: str = ""
    messages: list[TurnBody]
    system: TextBlocks | None = None
    tools: list[ToolBody] | None = None
    tool_choice: ToolChoiceBody | None = None
    thinking: ThinkingBody | None = None
    output_config: OutputBody | None = None
    cache_control: Ignored = None
    context_management: Ignored = None
    mcp_servers: Annotated[Any, not_honoured([], why=_NOTHING_REMOTE)] = None
    compaction: Annotated[Any, not_honoured()] = None
    betas: Ignored = None
    billing_policy: Ignored = None
    speed: Ignored = None
    user_profile_id: Ignored = None
    workspace_id: Ignored = None


class CountBody(PromptBody):
    """Of POST /v1/messages/count_tokens."""


class MessagesBody(PromptBody):
    """Of POST /v1/messages."""

    max_tokens: Annotated[int, Field(ge=1, le=_LONGEST)]
    stream: bool | None = None
    stop_sequences: Annotated[list[StopString], Field(max_length=MAX_STOPS)] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None

    seed: int | None = None
    deterministic: bool | None = None
    truncate: bool | None = None
    receipt: bool | None = None

    container: Annotated[Any, not_honoured(why=_NOTHING_REMOTE)] = None
    metadata: Ignored = None
    service_tier: Ignored = None
    inference_geo: Ignored = None
    diagnostics: Ignored = None
    fallbacks: Ignored = None
    fallback_credit_token: Ignored = None
    thread: Annotated[Any, not_honoured(why=lacks("conversations that are kept here"))] = None
