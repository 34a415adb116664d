"""WordPiece tokenizers: BERT."""

from __future__ import annotations

import re
from typing import Any

from registry.convert.tokens import TokenKind, Tokens, in_order
from registry.errors import Unsupported

_CONTINUED = "##"
_WORD_START = "\u2581"
_SPECIAL = re.compile(r"\[(?:PAD|UNK|CLS|SEP|MASK)\]")


def read_wordpiece(document: dict[str, Any]) -> Tokens:
    """Of a tokenizer.json. Raises ModelInvalid, and Unsupported for a prefix other than BERT's."""
    model = document["model"]
    if model.get("continuing_subword_prefix", _CONTINUED) != _CONTINUED:
        raise Unsupported("The tokenizer marks the rest of a word otherwise than BERT's does.")
    words = in_order(model.get("vocab"))
    kinds = [TokenKind.CONTROL if _SPECIAL.fullmatch(word) else TokenKind.NORMAL for word in words]
    texts = [word if kind is TokenKind.CONTROL else _engine_text(word) for word, kind in zip(words, kinds, strict=True)]
    tokens = Tokens("bert", texts, kinds, pre="default", originals=words)
    normalizer = document.get("normalizer")
    if isinstance(normalizer, dict) and normalizer.get("type") == "BertNormalizer":
        lowers = normalizer.get("lowercase") is not False
        strips = normalizer.get("strip_accents")
        tokens.flags["normalizer.lowercase"] = lowers
        tokens.flags["normalizer.strip_accents"] = lowers if strips is None else strips is True
    return tokens


def _engine_text(word: str) -> str:
    """The engine marks where words begin, WordPiece where they go on."""
    is_start = word and not word.startswith(_CONTINUED)
    return _WORD_START + word if is_start else word.removeprefix(_CONTINUED)
