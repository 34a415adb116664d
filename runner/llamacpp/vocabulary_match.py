"""Whether two models mean the same by the same tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llama_cpp import llama_cpp as lib

from runner.llamacpp.vocabulary import Vocabulary

MOST_PADDING = 128
"""Vocabularies of one family end in unused tokens, and differ in how many; llama.cpp allows so many."""
_FREE = 5
"""The first tokens, which models of one family name differently, as llama.cpp knows them."""
_TYPES = {
    lib.LLAMA_VOCAB_TYPE_SPM: "SentencePiece",
    lib.LLAMA_VOCAB_TYPE_BPE: "BPE",
    lib.LLAMA_VOCAB_TYPE_WPM: "WordPiece",
    lib.LLAMA_VOCAB_TYPE_UGM: "Unigram",
    lib.LLAMA_VOCAB_TYPE_RWKV: "RWKV",
}
_SPECIAL: tuple[tuple[str, Callable[[Any], Any]], ...] = (
    ("begin token", lib.llama_vocab_bos),
    ("end token", lib.llama_vocab_eos),
    ("adding of a begin token", lib.llama_vocab_get_add_bos),
    ("adding of an end token", lib.llama_vocab_get_add_eos),
)


def vocabulary_difference(model: Vocabulary, draft: Vocabulary) -> str | None:
    """What keeps one model from reading the other's tokens, as the end of a sentence; None when nothing does.

    Reads both vocabularies, which takes a fraction of a second for the largest.
    """
    types = [lib.llama_vocab_type(one.handle) for one in (model, draft)]
    if types[0] != types[1]:
        names = [_TYPES.get(one, "of another type") for one in types]
        return f"its vocabulary is {names[1]}, and that of the model {names[0]}"
    if abs(model.size - draft.size) > MOST_PADDING:
        return f"its vocabulary has {draft.size} tokens, and that of the model {model.size}"
    for name, read in _SPECIAL:
        mine, others = int(read(model.handle)), int(read(draft.handle))
        if mine != others:
            return f"its vocabulary has another {name} ({others}; that of the model: {mine})"
    for token in range(_FREE, min(model.size, draft.size)):
        if model.text(token) != draft.text(token):
            return (
                f"token {token} is {_shown(draft.text(token))} in its vocabulary, "
                f"and {_shown(model.text(token))} in that of the model"
            )
    return None


def _shown(text: bytes) -> str:
    return ascii(text[:40].decode("utf-8", "replace"))
