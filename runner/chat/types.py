"""What is asked of a model, and what comes back: the one request and the one event type of all dialects."""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from runner.adapters import AdapterSet
from runner.chat.media import Media
from runner.errors import Fact
from runner.sampling import Constraint, SamplingParams
from runner.tasks import LAST_TASK_EVENTS, TaskEvent

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class Tool(msgspec.Struct, frozen=True):
    """A function that a model may ask to be called."""

    name: str
    schema: dict[str, Any]
    """JSON schema of its arguments, an object."""
    description: str = ""
    format: Constraint | None = None
    """What the schema's pattern comes from, when calls must be kept to it whatever the model's own way."""


class ToolCall(msgspec.Struct, frozen=True):
    """A call that a model has asked for."""

    id: str
    name: str
    arguments: str
    """The JSON text of an object."""

    def parsed(self) -> dict[str, Any] | None:
        """The arguments; None when their text is cut off or is no object."""
        try:
            value = json.loads(self.arguments or "{}")
        except (ValueError, RecursionError):
            return None
        if not isinstance(value, dict):
            return None
        # A code for half a pair of surrogates is JSON, but no text that could be sent or tokenized.
        return value if _SURROGATE.search(self.arguments) is None else _well_formed(value)


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """One turn of a conversation. Roles the template does not know reach it unchanged."""

    role: str
    content: str
    thinking: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_name: str | None = None
    """In a tool's result: whose it is."""
    tool_call_id: str | None = None
    """In a tool's result: the call it answers."""
    media: tuple[Media, ...] = ()
    """Images and sounds between the characters of the content."""


class ChatPrompt(msgspec.Struct, frozen=True, tag="chat"):
    """A conversation, to be rendered by the model's chat template in the worker.

    `template` replaces the one in the model's file. `thinking` is passed to the template as
    `enable_thinking` when it was decided.
    """

    messages: tuple[Message, ...]
    template: str | None = None
    thinking: bool | None = None
    tools: tuple[Tool, ...] = ()
    effort: str | None = None
    """How hard to think, for templates that know such words: low, medium, high."""
    suffix: str = ""
    """What is to come behind the answer; then the last message alone is what comes before it."""
    continues: bool = False
    """The answer goes on with the words of the last message, which is the model's."""


class TextPrompt(msgspec.Struct, frozen=True, tag="text"):
    """Text that goes to the tokenizer as it is."""

    text: str
    media: tuple[Media, ...] = ()


class TokenPrompt(msgspec.Struct, frozen=True, tag="tokens"):
    """Tokens of the model's vocabulary, as they are."""

    tokens: tuple[int, ...]


class InsertPrompt(msgspec.Struct, frozen=True, tag="insert"):
    """Two texts between which the answer is to stand, for models with tokens that say so."""

    text: str
    suffix: str


class ToolUse(enum.StrEnum):
    """What is asked of a model that was given tools."""

    AUTO = "auto"
    """It may call them."""
    NONE = "none"
    """It may not."""
    REQUIRED = "required"
    """Its answer must be at least one call."""


class Limits(msgspec.Struct, frozen=True):
    """What one request may use of the window."""

    num_predict: int = -1
    """Tokens to generate; negative: until the model stops or the window is full."""
    num_ctx: int | None = None
    """The window of this request, in tokens; None, or more than is loaded: the loaded window."""
    truncate: bool = False
    """Drop the oldest turns of a conversation that does not fit; otherwise it is an error."""
    shift: bool = False
    """When the window fills while answering, forget the oldest half after `num_keep` and go on."""
    num_keep: int = 4
    """Prompt tokens that shifting never forgets."""
    num_draft: int | None = None
    """Most tokens that are guessed ahead in a step; 0 none, None as many as pay."""
    uses_draft_model: bool = False
    """Whether the draft model that was loaded with the model, if any, may guess for this request."""


class Priority(enum.StrEnum):
    """Who goes first when not all can; what waits long enough goes first in the end."""

    INTERACTIVE = "interactive"
    BACKGROUND = "background"


class ChatRequest(msgspec.Struct, frozen=True):
    """One generation, with every default already applied."""

    prompt: ChatPrompt | TextPrompt | TokenPrompt | InsertPrompt
    sampling: SamplingParams = SamplingParams()
    limits: Limits = Limits()
    stop: tuple[str, ...] = ()
    """Generation ends before any of these; none is empty."""
    context: tuple[int, ...] = ()
    """Tokens of an earlier answer that stand in front of the prompt (`context` of /api/generate)."""
    wants_context: bool = False
    """Put the tokens of prompt and answer into `Finished.context`."""
    tool_use: ToolUse = ToolUse.AUTO
    named_tool: str | None = None
    """With a required call: the one tool that it has to be."""
    parallel_calls: bool | None = None
    """Whether one answer may hold several calls; None: where the model calls of itself, not where it must."""
    is_render: bool = False
    """Only make the prompt, and answer with it."""
    constraint: Constraint | None = None
    logit_bias: tuple[tuple[int, float], ...] = ()
    """Token ids and what is added to their logits."""
    logprobs: int | None = None
    """Tell the log-probability of each token, and of so many of the likeliest; None tells none."""
    echo: bool = False
    """Begin the answer with the prompt, and with its log-probabilities where those are told."""

    priority: Priority = Priority.INTERACTIVE
    cache_scope: str = ""
    """Requests share what was computed for them only within a scope. Chosen by the daemon, never by a client."""
    deterministic: bool = False
    """Compute it so that nothing else that runs can change the text."""
    adapters: AdapterSet = ()

    @property
    def scores_prompt(self) -> bool:
        """Whether the log-probabilities of the prompt's tokens are to be told."""
        return self.echo and self.logprobs is not None


def _well_formed(value: dict[str, Any]) -> dict[str, Any]:
    text = json.dumps(value, ensure_ascii=False).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    found: dict[str, Any] = json.loads(text)
    return found


def usable_tools(request: ChatRequest) -> tuple[Tool, ...]:
    """The tools that the answer to a request may call."""
    if not isinstance(request.prompt, ChatPrompt) or request.tool_use is ToolUse.NONE:
        return ()
    return request.prompt.tools


def is_begun(messages: Sequence[Message]) -> bool:
    """Whether a conversation ends with words of the model's that an answer can go on with."""
    return bool(messages) and messages[-1].role == "assistant" and not messages[-1].tool_calls


def begun_answer(request: ChatRequest) -> str:
    """What is given of the answer to a request; nothing, mostly."""
    prompt = request.prompt
    return prompt.messages[-1].content if isinstance(prompt, ChatPrompt) and prompt.continues else ""


class FinishReason(enum.StrEnum):
    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    """The model stopped after asking for tools."""


class CachedTokens(msgspec.Struct, frozen=True):
    """Prompt tokens that were not computed, by where they came from."""

    live: int = 0
    """Shared with a sequence in the KV cells."""
    memory: int = 0
    disk: int = 0

    @property
    def total(self) -> int:
        return self.live + self.memory + self.disk


class Usage(msgspec.Struct, frozen=True):
    """Counts in tokens and durations in nanoseconds, as the engine saw them."""

    prompt_tokens: int
    cached_tokens: int
    """Prompt tokens that were not computed because they were already held."""
    completion_tokens: int
    queued_ns: int
    """From arrival in the worker to the first step that held a token of this request."""
    prompt_ns: int
    """From that step to the first sampled token."""
    decode_ns: int
    """From the first sampled token to the last."""
    cache: CachedTokens = CachedTokens()
    """Where `cached_tokens` came from."""
    drafted_tokens: int = 0
    """Tokens that were guessed and computed ahead."""
    accepted_tokens: int = 0
    """Those of them that were what the model chose; they are among the completion tokens."""
    draft_model_tokens: int = 0
    """Those of `drafted_tokens` that came from a draft model; the others were found earlier in the text."""
    draft_model_accepted: int = 0
    thinking_tokens: int = 0
    """Those of `completion_tokens` that were thoughts."""
    media_tokens: int = 0
    """Those of `prompt_tokens` that stand for images and sounds."""


class Truncation(msgspec.Struct, frozen=True):
    """A prompt that was shortened because the caller allowed it; counts in tokens."""

    original: int
    kept: int
    strategy: str
    """`drop_oldest_turns`, `drop_middle` (of a text without turns) or `shift`."""


class ScoredToken(msgspec.Struct, frozen=True, array_like=True):
    """A token as bytes, which need not be whole characters, and its log-probability."""

    data: bytes
    logprob: float | None
    """None for the first of a prompt, which nothing stands before."""
    alternatives: tuple[tuple[bytes, float], ...] = ()
    """The likeliest tokens at this place, falling."""


class TextDelta(msgspec.Struct, frozen=True, tag="text", omit_defaults=True):
    """More text: whole characters, nothing of a stop string."""

    text: str
    tokens: tuple[ScoredToken, ...] = ()
    """With log-probabilities: the tokens that were sampled since the last delta."""


class ThinkingDelta(msgspec.Struct, frozen=True, tag="thinking"):
    """More of what the model thinks before it answers."""

    text: str


class ToolCallDelta(msgspec.Struct, frozen=True, tag="tool_call", omit_defaults=True):
    """A call begins, or its arguments go on."""

    index: int
    """Calls of one answer count from 0."""
    id: str = ""
    """With the first delta of a call only, as its name."""
    name: str = ""
    arguments: str = ""
    """More of the arguments' JSON text."""


class Started(msgspec.Struct, frozen=True, tag="started"):
    """The prompt is computed; the first event of an answer that has any."""

    prompt_tokens: int
    cached_tokens: int


class Rendered(msgspec.Struct, frozen=True, tag="rendered"):
    """What would have been answered; the only event of a request that was to be rendered."""

    text: str
    tokens: tuple[int, ...]
    """-1 for what an image or a sound takes the place of."""
    context_length: int


class Finished(msgspec.Struct, frozen=True, tag="finished"):
    """The answer is complete; the last event of its request."""

    reason: FinishReason
    usage: Usage
    seed: int
    stop_string: str | None = None
    """The stop string that ended it, if one did."""
    truncated: Truncation | None = None
    context: tuple[int, ...] | None = None


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The request ended with an error; the last event of its request."""

    code: str
    message: str
    facts: dict[str, Fact] = {}


ChatEvent = Started | TextDelta | ThinkingDelta | ToolCallDelta | Rendered | TaskEvent | Finished | Failed

LAST_EVENTS = frozenset((Rendered, Finished, Failed)) | LAST_TASK_EVENTS
"""Nothing of a request comes after one of these."""
