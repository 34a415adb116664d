"""SentencePiece tokenizers: Llama 2, Mistral, Gemma; from tokenizer.model, or told as BPE in tokenizer.json."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Any

from registry.convert.tokens import TokenKind, Tokens, in_order, merge_pairs
from registry.errors import ModelInvalid, Unsupported

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_FLOAT = struct.Struct("<f")
_MAX_PIECES = 1 << 20
_MAX_VARINT_BYTES = 10
_LOWEST_SCORE = -1e6
_BPE = 2
"""SentencePiece's number of its BPE; 1 is its unigram model, which the engine runs otherwise."""


def read_sentencepiece(content: bytes) -> Tokens:
    """Of a tokenizer.model. Raises ModelInvalid or Unsupported."""
    texts: list[str] = []
    kinds: list[TokenKind] = []
    scores: list[float] = []
    flags: dict[str, bool] = {}
    model_type = 1
    for number, value in _fields(content):
        if number == 1 and isinstance(value, bytes):
            text, score, kind = _piece(value)
            texts.append(text)
            scores.append(score)
            kinds.append(kind)
            if len(texts) > _MAX_PIECES:
                raise ModelInvalid("tokenizer.model has too many pieces.")
        elif number == 2 and isinstance(value, bytes):
            model_type = next((one for key, one in _fields(value) if key == 3 and isinstance(one, int)), 1)
        elif number == 3 and isinstance(value, bytes):
            prefix = next((one for key, one in _fields(value) if key == 3 and isinstance(one, int)), 1)
            flags["add_space_prefix"] = bool(prefix)
    if not texts:
        raise ModelInvalid("tokenizer.model holds no pieces.")
    if model_type != _BPE:
        raise Unsupported("tokenizer.model is a unigram model; its BPE models are converted.")
    return Tokens("llama", texts, kinds, scores, pre="default", flags=flags)


def read_sentencepiece_json(document: dict[str, Any]) -> Tokens:
    """Of a tokenizer.json that tells SentencePiece's BPE; the order of its merges gives the scores."""
    model = document["model"]
    texts = in_order(model.get("vocab"))
    ranks: dict[str, int] = {}
    for rank, (first, second) in enumerate(merge_pairs(model.get("merges"))):
        ranks.setdefault(first + second, rank)
    unknown = model.get("unk_token")
    kinds, scores = [], []
    for text in texts:
        if text == unknown:
            kinds.append(TokenKind.UNKNOWN)
        else:
            kinds.append(TokenKind.BYTE if _BYTE.fullmatch(text) else TokenKind.NORMAL)
        scores.append(float(-ranks[text]) if text in ranks else _LOWEST_SCORE)
    flags = {"add_space_prefix": _prepends_blank(document)}
    return Tokens("llama", texts, kinds, scores, pre="default", flags=flags)


def _prepends_blank(document: dict[str, Any]) -> bool:
    found: list[dict[str, Any]] = []
    for part in (document.get("normalizer"), document.get("pre_tokenizer")):
        if isinstance(part, dict):
            steps = part.get("normalizers") or part.get("pretokenizers") or [part]
            found += [step for step in steps if isinstance(step, dict)]
    return any(
        step.get("type") == "Prepend"
        or (step.get("type") == "Metaspace" and step.get("prepend_scheme", "always") != "never")
        for step in found
    )


def _piece(content: bytes) -> tuple[str, float, TokenKind]:
    text, score, kind = "", 0.0, TokenKind.NORMAL
    for number, value in _fields(content):
        if number == 1 and isinstance(value, bytes):
            text = value.decode("utf-8", "replace")
        elif number == 2 and isinstance(value, float):
            score = value
        elif number == 3 and isinstance(value, int):
            try:
                kind = TokenKind(value)
            except ValueError:
                raise ModelInvalid(f"tokenizer.model has a piece of the unknown kind {value}.") from None
    return text, score, kind


def _fields(content: bytes) -> Iterator[tuple[int, int | float | bytes]]:
    """The fields of one message in protocol buffers' encoding. Raises ModelInvalid."""
    position = 0
    while position < len(content):
        key, position = _varint(content, position)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, position = _varint(content, position)
            yield number, value
            continue
        if wire == 2:
            length, position = _varint(content, position)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise ModelInvalid("tokenizer.model is not in SentencePiece's format.")
        if length > len(content) - position:
            raise ModelInvalid("tokenizer.model ends too early.")
        piece = content[position : position + length]
        position += length
        yield number, _FLOAT.unpack(piece)[0] if wire == 5 else piece


def _varint(content: bytes, position: int) -> tuple[int, int]:
    value = 0
    for step, byte in enumerate(content[position : position + _MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * step)
        if byte < 0x80:
            return value, position + step + 1
    raise ModelInvalid("tokenizer.model is not in SentencePiece's format.")
