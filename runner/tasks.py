"""What is asked of a model besides answers: vectors of texts, scores of documents, tokens; and what comes back."""

from __future__ import annotations

import msgspec


class EmbedTask(msgspec.Struct, frozen=True, tag="embed"):
    """Make a vector of each input. Answered by `Vectors`, then one `Encoded`."""

    inputs: tuple[str | tuple[int, ...], ...]
    """Texts, or tokens as they are."""
    truncate: bool = False
    """Cut the end off an input that is too long; otherwise it is an error."""
    normalize: bool = True
    """Make every vector one long."""
    dimensions: int | None = None
    """Keep only so many of the first numbers of each."""
    num_ctx: int | None = None
    """Most tokens of one input; None, or more than is loaded: the loaded window."""


class RerankTask(msgspec.Struct, frozen=True, tag="rerank"):
    """Say how well each document answers the query. Answered as `EmbedTask`, with one number for each document."""

    query: str
    documents: tuple[str, ...]
    truncate: bool = False
    """Cut the end off a document that is too long together with the query; otherwise it is an error."""
    num_ctx: int | None = None


class TokenizeTask(msgspec.Struct, frozen=True, tag="tokenize"):
    """Answered by `Tokenized`."""

    content: str
    add_special: bool = False
    """With what the model wants in front and behind."""
    parse_special: bool = False
    """Texts of control tokens become those tokens."""


class DetokenizeTask(msgspec.Struct, frozen=True, tag="detokenize"):
    """Answered by `Detokenized`."""

    tokens: tuple[int, ...]


Task = EmbedTask | RerankTask | TokenizeTask | DetokenizeTask


class Vectors(msgspec.Struct, frozen=True, tag="vectors"):
    """Some of the inputs are done: their numbers and their vectors, little-endian 32-bit floats. In any order."""

    items: tuple[tuple[int, bytes], ...]


class ShortenedInput(msgspec.Struct, frozen=True):
    """An input whose end was cut off because the caller allowed it; counts in tokens."""

    index: int
    original: int
    kept: int


class Encoded(msgspec.Struct, frozen=True, tag="encoded"):
    """All inputs are done; the last event of its task."""

    prompt_tokens: int
    shortened: tuple[ShortenedInput, ...] = ()


class Tokenized(msgspec.Struct, frozen=True, tag="tokenized"):
    tokens: tuple[int, ...]


class Detokenized(msgspec.Struct, frozen=True, tag="detokenized"):
    content: str


TaskEvent = Vectors | Encoded | Tokenized | Detokenized

LAST_TASK_EVENTS = frozenset((Encoded, Tokenized, Detokenized))
"""Nothing of a task comes after one of these."""
