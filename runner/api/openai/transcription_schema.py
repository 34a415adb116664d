"""The OpenAI dialect's forms for what is said in a sound."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from runner.api.form_data import read_flag, read_list, read_number
from runner.api.validation import Body, not_honoured, unsupported

FILES = ("file",)
LOGPROBS = "logprobs"
_NO_TIMES = "cannot be used: models that hear sounds in a conversation tell what is said, and not when"
_NO_SPEAKERS = "cannot be used: models that hear sounds in a conversation do not tell voices apart"
_MOST_HINTS = 100


def _read_format(value: object) -> object:
    if value in ("srt", "vtt", "verbose_json"):
        raise unsupported(f"{_NO_TIMES}; json and text can")
    if value == "diarized_json":
        raise unsupported(f"{_NO_SPEAKERS}; json and text can")
    return value


Format = Annotated[Literal["json", "text"], BeforeValidator(_read_format)]
Temperature = Annotated[
    float | None,
    Field(ge=0, le=1),
    BeforeValidator(read_number),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": 1}),
]
Language = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9 _-]{0,39}$")]
Hints = Annotated[
    list[Annotated[str, Field(max_length=200)]], Field(max_length=_MOST_HINTS), BeforeValidator(read_list)
]


class TranslationBody(Body):
    """A sound whose words are wanted in English."""

    file: bytes
    model: str
    prompt: str | None = None
    """Text that came before, or how it is to be written."""
    response_format: Format = "json"
    temperature: Temperature = None


class TranscriptionBody(TranslationBody):
    """A sound whose words are wanted."""

    language: Language | None = None
    languages: Annotated[list[Language], Field(max_length=_MOST_HINTS), BeforeValidator(read_list)] | None = None
    keywords: Hints | None = None
    include: Annotated[list[Literal["logprobs"]], BeforeValidator(read_list)] | None = None
    stream: Annotated[bool | None, BeforeValidator(read_flag)] = None
    chunking_strategy: Annotated[Any, not_honoured("auto")] = None
    """`auto` leaves it to the server, which gives a model the whole sound in the pieces that it wants."""
    timestamp_granularities: Annotated[Any, not_honoured(why=_NO_TIMES)] = None
    known_speaker_names: Annotated[Any, not_honoured(why=_NO_SPEAKERS)] = None
    known_speaker_references: Annotated[Any, not_honoured(why=_NO_SPEAKERS)] = None
