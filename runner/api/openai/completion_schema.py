"""The body of /v1/completions: text, or tokens, to be gone on with."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, WithJsonSchema

from runner.api.openai.schema import Count
from runner.api.openai.shaping import CompletingBody
from runner.api.sampling import Alternatives
from runner.api.validation import Ignored, invalid

MOST_PROMPTS = 128
_LARGEST_TOKEN = 2**31 - 1

Prompt = str | tuple[int, ...]


def _read_prompts(value: object) -> object:
    """One or several texts or lists of tokens, always as several."""
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list) or not value:
        raise invalid("must be a string, an array of strings, of tokens, or of arrays of tokens, and not empty")
    if isinstance(value[0], int):
        return (_tokens(value, ""),)
    if len(value) > MOST_PROMPTS:
        raise invalid(f"must have at most {MOST_PROMPTS} prompts")
    return tuple(_prompt(one, f"[{number}]") for number, one in enumerate(value))


def _prompt(value: object, path: str) -> Prompt:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value:
        return _tokens(value, path)
    raise invalid("must be a string or an array of tokens", path)


def _tokens(values: list[object], path: str) -> tuple[int, ...]:
    for number, token in enumerate(values):
        if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token <= _LARGEST_TOKEN:
            raise invalid("must be a token of the model", f"{path}[{number}]")
    return tuple(values)  # type: ignore[arg-type]  # checked above


Prompts = Annotated[
    tuple[Prompt, ...],
    BeforeValidator(_read_prompts),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": "string"}},
                {"type": "array", "items": {"type": "integer"}},
                {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}},
            ]
        }
    ),
]


class CompletionBody(CompletingBody):
    model: str = ""
    prompt: Prompts
    suffix: str | None = None
    echo: bool | None = None
    n: Count | None = None
    best_of: Count | None = None

    max_tokens: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    logprobs: Alternatives = None

    user: Ignored = None
