"""What has to be known of a vocabulary that is too large to keep: whether the engine can read text with it."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from registry.errors import ModelInvalid

VOCABULARY = "tokenizer.ggml.tokens"
TOKEN_TYPES = "tokenizer.ggml.token_type"
UNKNOWN_TOKEN = "tokenizer.ggml.unknown_token_id"
TOKEN_TYPE_BYTES = 4
MAX_VOCABULARY = 1 << 20
MAX_VOCABULARY_BYTES = 64 << 20

_LENGTH = struct.Struct("<Q")
_BYTE_TOKEN = re.compile(rb"<0x[0-9A-F]{2}>")
_BYTE_TOKEN_BYTES = 6
_BYTE_TYPE = b"\6"


@dataclass(frozen=True, slots=True)
class VocabularyFacts:
    """Of all its tokens together."""

    tokens: int
    byte_tokens: int
    """How many different ones stand for one byte, as `<0x0A>` does."""
    has_byte_types: bool
    """Whether the file says of any that it stands for one byte, whatever its text is."""
    doubled: str | None
    """A token that is there twice."""


def check_vocabulary_size(count: int, size: int) -> None:
    """Raises ModelInvalid for more than is ever read at once."""
    if count > MAX_VOCABULARY:
        raise ModelInvalid(f"The vocabulary has {count} tokens; at most {MAX_VOCABULARY} are read.")
    if size > MAX_VOCABULARY_BYTES:
        raise ModelInvalid(f"The vocabulary takes {size} bytes; at most {MAX_VOCABULARY_BYTES} are read.")


def read_vocabulary(content: bytes, types: bytes) -> VocabularyFacts:
    """Look through tokens as they lie in the file, whose lengths have been checked; costs half a microsecond each.

    The engine sees each as far as its first zero byte, and names what is empty by its number.
    """
    seen: set[int] = set()
    byte_tokens: set[bytes] = set()
    doubled: bytes | None = None
    count = at = 0
    length_at = _LENGTH.unpack_from
    while at < len(content):
        (length,) = length_at(content, at)
        token = content[at + 8 : at + 8 + length]
        at += 8 + length
        if b"\0" in token:
            token = token.partition(b"\0")[0]
        if not token:
            token = b"[EMPTY_%d]" % count
        count += 1
        if length == _BYTE_TOKEN_BYTES and _BYTE_TOKEN.fullmatch(token):
            byte_tokens.add(token)
        # Hashes take a fraction of the tokens' room.
        before = len(seen)
        seen.add(hash(token))
        if len(seen) == before and doubled is None:
            doubled = token
    shown = None if doubled is None else doubled[:80].decode("utf-8", "replace")
    # Of each type its lowest byte.
    has_byte_types = _BYTE_TYPE in types[::TOKEN_TYPE_BYTES]
    return VocabularyFacts(count, len(byte_tokens), has_byte_types, shown)
