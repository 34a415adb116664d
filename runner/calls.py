"""Calls: what a client asked for, whatever its dialect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from runner.chat.media import Media
from runner.chat.types import Message, Priority, Tool, ToolUse
from runner.sampling import Constraint


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """Messages to be answered with the next one."""

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    continues: bool = False
    """The answer goes on with the words of the last message, which is the model's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """Text to be answered: as a user's message, or with `raw` as it stands."""

    prompt: str
    system: str | None = None
    template: str | None = None
    raw: bool = False
    context: tuple[int, ...] | None = None
    """Tokens of an earlier answer to go on from."""
    suffix: str = ""
    """What is to come behind the answer."""
    tokens: tuple[int, ...] = ()
    """With `raw`, in place of a text."""
    media: tuple[Media, ...] = ()
    """Images and sounds in the prompt."""

    @property
    def is_empty(self) -> bool:
        return not (self.prompt or self.suffix or self.tokens or self.media)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What a client asked for, whatever its dialect."""

    request_id: str
    model: str
    prompt: Conversation | Completion
    options: Mapping[str, object] = field(default_factory=dict)
    options_path: str = "options."
    """Where the options stand in the client's request, for errors."""
    keep_alive: float | None = None
    """Seconds the model stays loaded afterwards; None leaves it to the configuration."""
    thinking: bool | None = None
    effort: str | None = None
    """How hard to think, in the word that the model's template may know."""
    thinking_field: str = "think"
    """Where the wish for thinking stands in the client's request."""
    effort_field: str = ""
    """Where the effort stands, when it is in a place of its own."""
    may_think_in_vain: bool = False
    """Whether a wish for thinking is let go where the model cannot; otherwise it is an error."""
    tool_use: ToolUse = ToolUse.AUTO
    named_tool: str | None = None
    parallel_calls: bool | None = None
    truncate: bool = False
    truncate_wish: str = '"truncate": true'
    """How the client would say that its prompt may be shortened, for errors."""
    shift: bool = False
    constraint: Constraint | None = None
    logit_bias: tuple[tuple[int, float], ...] = ()
    logprobs: int | None = None
    """Alternatives to tell with each token; None: no log-probabilities."""
    priority: Priority = Priority.INTERACTIVE
    cache_scope: str = ""
    """Whose requests this one may share computed prefixes with; never chosen by a client."""
    echo: bool = False
    """Begin the answer with the prompt."""
    receipt: bool = False
    """Tell with the answer what it was made with."""
    variant: int = 0
    """Added to the seed, so that several answers to one request differ and come again."""

    @property
    def media(self) -> Sequence[Media]:
        """All its images and sounds."""
        if isinstance(self.prompt, Conversation):
            return [medium for message in self.prompt.messages for medium in message.media]
        return self.prompt.media

    @property
    def is_empty(self) -> bool:
        """Nothing to answer: the model is only to be loaded or unloaded."""
        if isinstance(self.prompt, Conversation):
            return not self.prompt.messages
        return self.prompt.is_empty
