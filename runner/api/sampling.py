"""What shapes the choice of tokens, as all dialects take it and tell of it: constraints, biases, log-probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from pydantic import BeforeValidator, Field, WithJsonSchema

from runner.api.validation import Body, invalid
from runner.chat.types import ScoredToken
from runner.errors import InvalidRequest
from runner.sampling import Constraint, ConstraintKind

MOST_ALTERNATIVES = 20
MOST_BIASES = 1024
_LARGEST_TOKEN = 2**31 - 1
_UNLIKELY = -9999.0
"""The least that is told: JSON has no infinite numbers."""


class Grammar(Body):
    """Puna's own: what the whole answer has to match."""

    type: Literal["regex", "lark", "gbnf"]
    value: str


def _read_bias(value: object) -> object:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise invalid("must be an object of token ids and numbers")
    if len(value) > MOST_BIASES:
        raise invalid(f"must have at most {MOST_BIASES} tokens")
    return {_token(name): _bias(name, bias) for name, bias in value.items()}


def _token(name: object) -> int:
    if not isinstance(name, str) or not name.isascii() or not name.isdigit() or len(name) > 10:
        raise invalid("must be a token id", f".{str(name)[:40]}")
    if int(name) > _LARGEST_TOKEN:
        raise invalid("must be a token id of the model", f".{name}")
    return int(name)


def _bias(name: object, bias: object) -> float:
    if isinstance(bias, bool) or not isinstance(bias, int | float) or not -100 <= bias <= 100:
        raise invalid("must be a number from -100 to 100", f".{str(name)[:40]}")
    return float(bias)


def _read_alternatives(value: object) -> object:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if value is None or (is_whole and 0 <= value <= MOST_ALTERNATIVES):  # type: ignore[operator]
        return value
    raise invalid(f"must be between 0 and {MOST_ALTERNATIVES}")


LogitBias = Annotated[
    dict[int, float] | None,
    BeforeValidator(_read_bias),
    WithJsonSchema(
        {
            "type": ["object", "null"],
            "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
            "description": "Token ids, and what is added to their logits.",
        }
    ),
]
Alternatives = Annotated[
    int | None,
    BeforeValidator(_read_alternatives),
    Field(json_schema_extra={"minimum": 0, "maximum": MOST_ALTERNATIVES}),
]


def json_constraint(schema: Mapping[str, Any] | None, field: str) -> Constraint:
    """What keeps an answer to a JSON schema; None is JSON mode: any object."""
    source = msgspec.json.encode({"type": "object"} if schema is None else schema).decode()
    return Constraint(ConstraintKind.JSON_SCHEMA, source, field)


def one_constraint(json: Constraint | None, grammar: Grammar | None) -> Constraint | None:
    """The constraint of a request, which may have one. Raises InvalidRequest."""
    if grammar is None:
        return json
    if json is not None:
        raise InvalidRequest("grammar cannot be combined with a JSON format; send one of them.", "grammar")
    return Constraint(ConstraintKind(grammar.type), grammar.value, "grammar.value")


def wanted_logprobs(logprobs: bool | None, alternatives: int | None) -> int | None:
    """How many alternatives are to be told; None: no log-probabilities. Raises InvalidRequest."""
    if logprobs:
        return alternatives or 0
    if alternatives:
        raise InvalidRequest("top_logprobs needs logprobs: true.", "top_logprobs")
    return None


def token_entries(tokens: Sequence[ScoredToken], *, always_alternatives: bool) -> list[dict[str, object]]:
    """Tokens as the chat routes of Ollama and OpenAI tell them."""
    entries = []
    for token in tokens:
        entry = _entry(token.data, token.logprob)
        if always_alternatives or token.alternatives:
            entry["top_logprobs"] = [_entry(data, logprob) for data, logprob in token.alternatives]
        entries.append(entry)
    return entries


def told_logprob(logprob: float | None) -> float:
    """As JSON can hold it; the first token of all, which nothing stands before, is certain."""
    if logprob is None:
        return 0.0
    return logprob if logprob > _UNLIKELY else _UNLIKELY


def _entry(data: bytes, logprob: float | None) -> dict[str, object]:
    return {"token": data.decode("utf-8", "replace"), "logprob": told_logprob(logprob), "bytes": list(data)}
