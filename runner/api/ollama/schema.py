"""The Ollama dialect's request bodies."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from runner.api.sampling import Alternatives, Grammar
from runner.api.validation import Body, Ignored, KeepAlive, invalid, not_honoured
from runner.errors import InvalidRequest

_THINK_LEVELS = ("high", "medium", "low", "max")
_LARGEST_TOKEN = 2**31 - 1


def _read_think(value: object) -> object:
    if value is None or isinstance(value, bool) or value in _THINK_LEVELS:
        return value
    kinds = '"high", "medium", "low", "max", true, or false'
    if isinstance(value, str):
        raise invalid(f'is an invalid think value: "{value[:40]}" (must be {kinds})')
    raise invalid(f"must be a boolean or string ({kinds})")


def _lower_case(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _read_tool_choice(value: object) -> object:
    if value is None or isinstance(value, dict) or value in ("auto", "none", "required"):
        return value
    raise invalid('must be "auto", "none", "required" or {"function": {"name": …}}')


Think = Annotated[
    bool | Literal["high", "medium", "low", "max"] | None,
    BeforeValidator(_read_think),
    WithJsonSchema({"enum": [None, False, True, *_THINK_LEVELS]}),
]


def _read_format(value: object) -> object:
    if value in (None, ""):
        return None
    if value == "json" or isinstance(value, dict):
        return value
    raise invalid('is an invalid format; expected "json" or a valid JSON Schema object')


Format = Annotated[
    Literal["json"] | dict[str, Any] | None,
    BeforeValidator(_read_format),
    WithJsonSchema({"anyOf": [{"enum": ["json", "", None]}, {"type": "object", "description": "A JSON schema."}]}),
]


class CalledFunction(Body):
    name: str
    arguments: dict[str, Any]
    index: Ignored = None


class ToolCallBody(Body):
    id: str | None = None
    type: Ignored = None
    function: CalledFunction


class FunctionBody(Body):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: Ignored = None


class ToolBody(Body):
    type: Literal["function"] | None = None
    function: FunctionBody
    items: Ignored = None


class Message(Body):
    """One turn of a conversation."""

    role: Annotated[str, BeforeValidator(_lower_case)]
    content: str | None = None
    thinking: str | None = None
    images: list[str] | None = None
    tool_calls: list[ToolCallBody] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class _Generation(Body):
    """What /api/generate and /api/chat have in common."""

    model: str = ""
    stream: bool | None = None
    options: dict[str, Any] | None = None
    keep_alive: KeepAlive = None
    think: Think = None
    truncate: bool | None = None
    shift: bool | None = None
    format: Format = None
    grammar: Grammar | None = None
    logprobs: bool | None = None
    top_logprobs: Alternatives = None
    receipt: bool | None = None
    debug_render_only: bool | None = Field(None, alias="_debug_render_only")
    """Answer with the prompt itself."""


class NamedFunction(Body):
    name: str


class NamedTool(Body):
    type: Literal["function"] | None = None
    function: NamedFunction


class ChatBody(_Generation):
    messages: list[Message] | None = None
    tools: list[ToolBody] | None = None
    tool_choice: Annotated[
        Literal["auto", "none", "required"] | NamedTool | None, BeforeValidator(_read_tool_choice)
    ] = None
    """Not in Ollama's own API."""


class GenerateBody(_Generation):
    prompt: str | None = None
    system: str | None = None
    template: str | None = None
    raw: bool | None = None
    context: list[Annotated[int, Field(ge=0, le=_LARGEST_TOKEN)]] | None = None
    suffix: str | None = None
    images: list[str] | None = None


class RenderBody(ChatBody, GenerateBody):
    """As a chat or as a completion."""

    @property
    def is_chat(self) -> bool:
        """Raises InvalidRequest unless it is one of the two, with nothing of the other."""
        if (self.messages is None) == (self.prompt is None):
            raise InvalidRequest("Send either messages or a prompt.", "messages")
        kind, shown = (ChatBody, "messages") if self.prompt is None else (GenerateBody, "prompt")
        for name in sorted(self.model_fields_set - kind.model_fields.keys()):
            if getattr(self, name) is not None:
                raise InvalidRequest(f"{name} cannot be used with {shown}.", name)
        return self.prompt is None


class _Named(Body):
    """A request about one model, which older clients call `name`."""

    model: str | None = None
    name: str | None = None

    @property
    def model_name(self) -> str:
        """Raises InvalidRequest when there is none, or two."""
        if self.model and self.name and self.model != self.name:
            raise InvalidRequest("model and name differ; send model alone.", "name")
        name = self.model or self.name
        if not name:
            raise InvalidRequest("model is required", "model")
        return name


class ShowBody(_Named):
    verbose: bool | None = None
    system: Ignored = None
    template: Ignored = None
    options: Ignored = None


class DeleteBody(_Named):
    force: bool | None = None
    """Also when the model answers or is being downloaded: that is ended."""


class PullBody(_Named):
    """`model` may also be the address of a GGUF file."""

    stream: bool | None = None
    as_: str | None = Field(None, alias="as")
    """The name to install it under, instead of what the source says."""
    insecure: bool | None = None
    """Plain HTTP and unverified TLS, of registries that are listed."""
    dry_run: bool | None = None
    """Tell what would be fetched, and whether there is room for it."""
    username: Ignored = None
    password: Ignored = None


class PushBody(_Named):
    stream: bool | None = None
    insecure: bool | None = None
    """As for a pull."""
    username: Ignored = None
    password: Ignored = None


class CopyBody(Body):
    source: str
    destination: str


class CreateMessage(Body):
    role: Annotated[str, BeforeValidator(_lower_case)]
    content: str


class CreateBody(_Named):
    stream: bool | None = None
    from_: str | None = Field(None, alias="from")
    files: dict[str, str] | None = None
    template: str | None = None
    system: str | None = None
    license: Annotated[
        list[str] | None,
        BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
        WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
    ] = None
    parameters: dict[str, Any] | None = None
    messages: list[CreateMessage] | None = None
    adapters: dict[str, str] | None = None
    draft_files: dict[str, str] | None = None
    quantize: str | None = None
    quantization: str | None = None
    """The older name of `quantize`."""
    imatrix: str | None = None
    """The digest of an uploaded importance matrix. Puna's own, as the next."""
    calibration: str | None = None
    """The digest of an uploaded text to compute a matrix from."""
    draft_quantize: str | None = None
    renderer: str | None = None
    parser: str | None = None
    requires: str | None = None
    remote_host: Annotated[Any, not_honoured("")] = None
    info: Annotated[Any, not_honoured({})] = None
