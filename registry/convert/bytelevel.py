"""Byte-level BPE tokenizers: Llama 3, Qwen, GPT-2 and their kin."""

from __future__ import annotations

from typing import Any

from registry.convert.tokens import TokenKind, Tokens, in_order, merge_pairs
from registry.errors import ModelInvalid, Unsupported

_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_HEAD = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_PATTERNS = {
    rf"{_HEAD}|\p{{N}}{{1,3}}{_TAIL}": "llama-bpe",
    rf"{_HEAD}|\p{{N}}{_TAIL}": "qwen2",
    _TEKKEN: "tekken",
}
"""How text is split, and the engine's name for it. Another way of splitting would give other tokens."""


def read_byte_level(document: dict[str, Any]) -> Tokens:
    """Of a tokenizer.json. Raises ModelInvalid, and Unsupported for a splitting that the engine has no name for."""
    model = document["model"]
    texts = in_order(model.get("vocab"))
    pairs = merge_pairs(model.get("merges"))
    # In the engine's list a blank divides the two: merges with one inside are written in the bytes' alphabet.
    merges = [f"{_without_blanks(first)} {_without_blanks(second)}" for first, second in pairs]
    kinds = [TokenKind.NORMAL] * len(texts)
    return Tokens("gpt2", texts, kinds, merges=merges, pre=_splitting(document.get("pre_tokenizer")))


def _without_blanks(text: str) -> str:
    return text.replace(" ", "\u0120")


def _splitting(pre_tokenizer: object) -> str:
    steps = _steps(pre_tokenizer)
    kinds = [step.get("type") for step in steps]
    if not kinds or kinds[-1] != "ByteLevel":
        raise Unsupported("The tokenizer does not work on bytes, and is of no other kind that is read.")
    if kinds == ["ByteLevel"]:
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits") is True:
        return "smollm"
    if kinds == ["Split", "ByteLevel"]:
        pattern = steps[0].get("pattern")
        found = _PATTERNS.get(pattern.get("Regex", "")) if isinstance(pattern, dict) else None
        if found is not None:
            return found
    raise Unsupported("The tokenizer splits text in a way that the engine has no name for (pre_tokenizer).")


def _steps(pre_tokenizer: object) -> list[dict[str, Any]]:
    if not isinstance(pre_tokenizer, dict):
        raise ModelInvalid("tokenizer.json has no pre_tokenizer.")
    steps = pre_tokenizer.get("pretokenizers") if pre_tokenizer.get("type") == "Sequence" else [pre_tokenizer]
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise ModelInvalid("tokenizer.json has no sound pre_tokenizer.")
    return steps
