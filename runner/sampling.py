"""How the next token is chosen."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class ConstraintKind(enum.StrEnum):
    """In what a constraint is written."""

    JSON_SCHEMA = "json_schema"
    REGEX = "regex"
    LARK = "lark"
    GBNF = "gbnf"


@dataclass(frozen=True, slots=True)
class Constraint:
    """What the whole answer has to be."""

    kind: ConstraintKind
    source: str
    """The schema as JSON, the regular expression, or the grammar."""
    field: str
    """Where it stands in the client's request, for errors."""
    after: str | None = None
    """The answer is free until it has said this; then what follows is constrained."""
    is_optional: bool = False
    """With `after`: the answer may as well end without having said it."""
    begun: str = ""
    """What the answer already has when it begins; it counts as part of it."""
    is_framed: bool = False
    """A grammar that was written here, around schemas that come from elsewhere."""


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """One request's sampling settings, in the order the sampler chain applies them.

    The defaults are those of the Ollama API. Values are validated where options are parsed
    (`runner.options`); here they are taken as given.
    """

    repeat_penalty: float = 1.0
    """Divides the logits of recent tokens; 1.0 is off."""
    repeat_last_n: int = 64
    """How many recent tokens the three penalties look at; 0 is off, -1 the whole window."""
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    temperature: float = 0.8
    """0 always takes the likeliest token."""
    top_k: int = 40
    """0 keeps all."""
    top_p: float = 0.9
    min_p: float = 0.0
    typical_p: float = 1.0
    mirostat: int = 0
    """0 off, 1 and 2 the two versions of the algorithm; they replace top-k, top-p, min-p and typical-p."""
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    seed: int | None = None
    """None draws one; the seed that was used is told in `Finished`."""
