"""The body of /v1/responses."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from runner.api.openai.custom_tools import CustomBody
from runner.api.openai.item_schema import Input
from runner.api.openai.schema import Effort
from runner.api.openai.shaping import ShapedBody
from runner.api.openai.tools import FunctionBody, known_tool, tool_tag
from runner.api.sampling import Alternatives
from runner.api.validation import Body, Ignored, invalid, lacks, not_honoured, unsupported

_LONGEST = 2**31 - 1
_ELSEWHERE = lacks("what is kept on somebody else's servers")
Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]], Field(max_length=16)
]
LOGPROBS = "message.output_text.logprobs"
Includable = Literal[
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
    "reasoning.encrypted_content",
    "message.output_text.logprobs",
]


class _Tool(Body):
    """What both kinds of tools have here beside what they have in chat completions."""

    allowed_callers: Annotated[Any, not_honoured(["direct"])] = None
    defer_loading: Annotated[Any, not_honoured(False)] = None
    async_: Annotated[Any, not_honoured(False)] = Field(None, alias="async")


class FunctionTool(FunctionBody, _Tool):
    type: Literal["function"]
    output_schema: Ignored = None


class CustomTool(CustomBody, _Tool):
    """A tool whose input is a text."""

    type: Literal["custom"]


ToolBody = Annotated[
    Annotated[
        Annotated[FunctionTool, Tag("function_tool")] | Annotated[CustomTool, Tag("custom_tool")],
        Discriminator(tool_tag),
    ],
    known_tool,
]


def _known_kind(value: object) -> object:
    if isinstance(value, str) and value not in ("function", "custom"):
        raise unsupported(lacks(f"tools of the type {value[:50]!r}"))
    return value


class AllowedTool(Body):
    type: Annotated[Literal["function", "custom"], BeforeValidator(_known_kind)]
    name: str


class Choice(Body):
    """Which tools are to be called; a word alone is an object of that type."""

    type: Literal["none", "auto", "required", "function", "custom", "allowed_tools"]
    name: str | None = None
    mode: Literal["auto", "required"] | None = None
    tools: list[AllowedTool] | None = None


_CHOICES = ("none", "auto", "required", "function", "custom", "allowed_tools")


def _read_choice(value: object) -> object:
    if isinstance(value, str):
        if value not in _CHOICES[:3]:
            raise invalid("must be 'none', 'auto', 'required' or an object")
        return {"type": value}
    if isinstance(value, dict) and isinstance(kind := value.get("type"), str) and kind not in _CHOICES:
        raise unsupported(lacks(f"the choice {kind[:50]!r}"), ".type")
    return value


ChoiceBody = Annotated[
    Choice | None,
    BeforeValidator(_read_choice, json_schema_input_type=Literal["none", "auto", "required"] | Choice | None),
]


class FormatBody(Body):
    type: Literal["text", "json_object", "json_schema"]
    name: Ignored = None
    description: Ignored = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None
    """The schema is kept to whether this says so or not."""


class TextBody(Body):
    format: FormatBody | None = None
    verbosity: Annotated[Any, not_honoured("medium")] = None


class ReasoningWish(Body):
    effort: Effort = None
    summary: Ignored = None
    generate_summary: Ignored = None
    context: Ignored = None
    mode: Annotated[Any, not_honoured("standard")] = None


class ResponseStreamOptions(Body):
    include_obfuscation: Ignored = None


class ConversationName(Body):
    id: str


class ResponsePromptBody(Body):
    """What decides a prompt: the part that counting has in common with answering."""

    model: str = ""
    instructions: str | None = None
    previous_response_id: str | None = None
    tools: list[ToolBody] | None = None
    tool_choice: ChoiceBody = None
    parallel_tool_calls: bool | None = None
    text: TextBody | None = None
    reasoning: ReasoningWish | None = None
    truncation: Literal["auto", "disabled"] | None = None
    conversation: Annotated[
        ConversationName | None,
        BeforeValidator(lambda value: {"id": value} if isinstance(value, str) else value),
        Field(json_schema_extra={"description": "The id of a conversation, or an object that has it."}),
    ] = None


class InputTokensBody(ResponsePromptBody):
    """Of POST /v1/responses/input_tokens."""

    input: Input | None = None
    personality: Ignored = None


class ResponseBody(ResponsePromptBody, ShapedBody):
    """Of POST /v1/responses."""

    input: Input
    store: bool | None = None
    metadata: Metadata | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=_LONGEST)] | None = None
    top_logprobs: Alternatives = None
    include: list[Includable] | None = None
    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None

    background: bool | None = None
    """Make it while nobody waits."""
    prompt: Annotated[Any, not_honoured(why=_ELSEWHERE)] = None
    context_management: Annotated[Any, not_honoured([])] = None
    moderation: Annotated[Any, not_honoured()] = None

    max_tool_calls: Ignored = None
    access_programs: Ignored = None
    background_options: Ignored = None
    image: Ignored = None
    user: Ignored = None
    service_tier: Ignored = None
    safety_identifier: Ignored = None
    prompt_cache_key: Ignored = None
    prompt_cache_options: Ignored = None
    prompt_cache_retention: Ignored = None
