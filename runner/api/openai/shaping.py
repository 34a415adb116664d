"""How tokens are chosen: the fields that several bodies of this dialect have, and what they mean."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, WithJsonSchema

from runner.api.sampling import Grammar, LogitBias
from runner.api.validation import Body, Ignored

Penalty = Annotated[float, Field(ge=-2, le=2)]
Stop = Annotated[
    list[str] | None,
    BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}, {"type": "null"}]}),
]


class ShapedBody(Body):
    """What all bodies that ask for an answer have in common."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    grammar: Grammar | None = None
    deterministic: bool | None = None
    receipt: bool | None = None


class StreamOptions(Body):
    include_usage: bool | None = None
    include_obfuscation: Ignored = None


class CompletingBody(ShapedBody):
    """What both kinds of completions have besides."""

    stream: bool | None = None
    stream_options: StreamOptions | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    stop: Stop = None
    logit_bias: LogitBias = None
    truncate: bool | None = None

    @property
    def wants_usage(self) -> bool:
        """Whether a stream is to end with the counts of tokens; a whole answer has them always."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)


_OPTIONS = ("temperature", "top_p", "top_k", "min_p", "seed", "deterministic")
_COMPLETING_OPTIONS = (*_OPTIONS, "frequency_penalty", "presence_penalty", "stop")


def chosen_options(body: ShapedBody) -> dict[str, object]:
    """The options that a body sets, under the names that all dialects share."""
    names = _COMPLETING_OPTIONS if isinstance(body, CompletingBody) else _OPTIONS
    return {name: value for name in names if (value := getattr(body, name)) is not None}
