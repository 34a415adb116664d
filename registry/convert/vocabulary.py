"""A checkpoint's tokenizer as the engine wants it, whichever of the three kinds it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import gguf

from registry.convert.bytelevel import read_byte_level
from registry.convert.checkpoint import Checkpoint
from registry.convert.sentencepiece import read_sentencepiece, read_sentencepiece_json
from registry.convert.tokens import TokenKind, Tokens
from registry.convert.wordpiece import read_wordpiece
from registry.errors import ModelInvalid, Unsupported

_SPECIAL = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
    "sep_token": "seperator_token_id",  # the engine's spelling
    "cls_token": "cls_token_id",
    "mask_token": "mask_token_id",
}
_BERT_TOKENS = {
    "unk_token": "[UNK]",
    "pad_token": "[PAD]",
    "sep_token": "[SEP]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
"""What BERT's tokenizer takes where nothing is said."""
_MAX_TOKENS = 1 << 20


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Tokens, and what the engine is told of them."""

    tokens: Tokens
    special: dict[str, int]
    """Ids by the engine's names."""
    adds_begin: bool | None
    """Whether a prompt begins with the begin token; None leaves it to the engine's habit for the kind."""
    chat_template: str | None
    flags: dict[str, bool] = field(default_factory=dict)

    def write(self, writer: gguf.GGUFWriter) -> None:
        tokens = self.tokens
        writer.add_tokenizer_model(tokens.model)
        if tokens.pre is not None:
            writer.add_tokenizer_pre(tokens.pre)
        writer.add_token_list(tokens.texts)
        writer.add_token_types([int(kind) for kind in tokens.kinds])
        if tokens.scores:
            writer.add_token_scores(tokens.scores)
        if tokens.merges:
            writer.add_token_merges(tokens.merges)
        for name, token in self.special.items():
            writer.add_uint32(f"tokenizer.ggml.{name}", token)
        if self.adds_begin is not None:
            writer.add_add_bos_token(self.adds_begin)
        for name, value in self.flags.items():
            writer.add_bool(f"tokenizer.ggml.{name}", value)
        if self.chat_template is not None:
            writer.add_chat_template(self.chat_template)


def read_vocabulary(checkpoint: Checkpoint) -> Vocabulary:
    """Raises ModelInvalid or Unsupported."""
    settings = checkpoint.read_json("tokenizer_config.json") or {}
    document = checkpoint.read_json("tokenizer.json")
    tokens = _read_tokens(checkpoint, document)
    size = checkpoint.config.count("vocab_size")
    if not 0 < len(tokens.texts) <= _MAX_TOKENS:
        raise ModelInvalid(f"The tokenizer has {len(tokens.texts)} tokens.")
    tokens.add(_added_tokens(document, settings))
    if len(tokens.texts) > size:
        raise ModelInvalid(f"The tokenizer has {len(tokens.texts)} tokens, and config.json says {size}.")
    tokens.pad(size)
    return Vocabulary(
        tokens,
        _special_tokens(checkpoint, settings, tokens),
        _adds_begin(tokens, document, settings),
        _chat_template(checkpoint, settings),
        dict(tokens.flags),
    )


def _read_tokens(checkpoint: Checkpoint, document: dict[str, Any] | None) -> Tokens:
    pieces = checkpoint.read_bytes("tokenizer.model")
    if pieces is not None:
        return read_sentencepiece(pieces)
    model = document.get("model") if document else None
    kind = model.get("type") if isinstance(model, dict) else None
    if document is not None and (
        kind == "WordPiece" or (isinstance(model, dict) and "max_input_chars_per_word" in model)
    ):
        return read_wordpiece(document)
    if document is not None and isinstance(model, dict) and kind in ("BPE", None) and "merges" in model:
        return read_sentencepiece_json(document) if model.get("byte_fallback") else read_byte_level(document)
    if document is not None:
        raise Unsupported(
            f"The tokenizer is of the kind {str(kind)[:40]!a}; BPE, SentencePiece and WordPiece are read."
        )
    words = checkpoint.read_text("vocab.txt")
    if words is not None:
        return read_wordpiece({"model": {"vocab": {word: i for i, word in enumerate(words.splitlines())}}})
    raise ModelInvalid("The checkpoint has no tokenizer.json, tokenizer.model or vocab.txt.")


def _added_tokens(document: dict[str, Any] | None, settings: dict[str, Any]) -> list[tuple[int, str, TokenKind]]:
    """Tokens that were added to the vocabulary, or whose kind is told beside it."""
    added = document.get("added_tokens") if document else None
    entries = [(one.get("id"), one) for one in added if isinstance(one, dict)] if isinstance(added, list) else []
    if not entries and isinstance(decoder := settings.get("added_tokens_decoder"), dict):
        entries = [(int(key), one) for key, one in decoder.items() if key.isdecimal() and isinstance(one, dict)]
    found = []
    for number, entry in entries:
        text = entry.get("content")
        if not isinstance(number, int) or not 0 <= number < _MAX_TOKENS or not isinstance(text, str):
            raise ModelInvalid("The tokenizer has an added token without id and text.")
        found.append((number, text, TokenKind.CONTROL if entry.get("special") is True else TokenKind.USER_DEFINED))
    return sorted(found)


def _special_tokens(checkpoint: Checkpoint, settings: dict[str, Any], tokens: Tokens) -> dict[str, int]:
    found: dict[str, int] = {}
    ids = {text: number for number, text in enumerate(tokens.originals) if text}
    customary = _BERT_TOKENS if tokens.model == "bert" else {}
    beside = checkpoint.read_json("special_tokens_map.json") or {}
    for name, key in _SPECIAL.items():
        said = settings.get(name, beside.get(name, customary.get(name)))
        text = said.get("content") if isinstance(said, dict) else said
        number = ids.get(text) if isinstance(text, str) else None
        if number is None:
            number = checkpoint.config.identifier(f"{name}_id")
        if number is not None and number < len(tokens.texts):
            found[key] = number
    if "cls_token_id" in found and "bos_token_id" not in found:
        found["bos_token_id"] = found["cls_token_id"]
    return found


def _adds_begin(tokens: Tokens, document: dict[str, Any] | None, settings: dict[str, Any]) -> bool | None:
    said = settings.get("add_bos_token")
    if isinstance(said, bool):
        return said
    if tokens.model != "gpt2" or document is None:
        return None  # the other kinds all do, and the engine knows
    return _begins_with_special(document.get("post_processor"))


def _begins_with_special(processor: object) -> bool:
    """Whether the template that is put around a single text opens with a token of its own."""
    if not isinstance(processor, dict):
        return False
    parts = processor.get("processors")
    if isinstance(parts, list):
        return any(_begins_with_special(part) for part in parts)
    single = processor.get("single")
    return isinstance(single, list) and bool(single) and isinstance(single[0], dict) and "SpecialToken" in single[0]


def _chat_template(checkpoint: Checkpoint, settings: dict[str, Any]) -> str | None:
    template = checkpoint.read_text("chat_template.jinja")
    if template is None:
        said = settings.get("chat_template")
        if isinstance(said, list):
            named = {one.get("name"): one.get("template") for one in said if isinstance(one, dict)}
            said = named.get("default")
        template = said if isinstance(said, str) else None
    return template or None
