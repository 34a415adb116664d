"""Vocabularies that cannot tell every text: nothing is asked of llama.cpp about tokens that are none."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from registry.gguf_metadata import read_gguf
from registry.gguf_types import STRING
from runner.errors import ModelInvalid
from runner.llamacpp.engine import LlamaEngine
from runner.llamacpp.library import Library
from runner.loaded_model import LoadOptions
from tests.gguf_document import Document
from tests.tiny_families import write_tiny_family


def test_a_text_that_a_vocabulary_has_no_tokens_for_is_an_error_and_not_a_number_below_zero(
    library: Library, tiny_model: Path, tmp_path: Path
) -> None:
    kind = b"rwkv"
    sound = Document.read(tiny_model.read_bytes())
    path = tmp_path / "odd.gguf"
    path.write_bytes(sound.with_pair("tokenizer.ggml.model", STRING, struct.pack("<Q", len(kind)) + kind).to_bytes())
    read_gguf(path)
    engine = LlamaEngine(library, path, LoadOptions(64, max_sequences=1, num_batch=32, num_thread=1))
    try:
        tokens = engine.tokenize("ab", add_special=False, parse_special=False)
        assert [engine.written(token) for token in tokens] == [b"a", b"b"]
        with pytest.raises(ModelInvalid, match="no token for a part of the text"):
            engine.tokenize("a\u4f60", add_special=False, parse_special=False)
        with pytest.raises(ModelInvalid, match="no token for a part of the text"):
            engine.tokenize_whole("a\u4f60", parse_special=True)
    finally:
        engine.close()


@pytest.mark.parametrize(
    ("absent", "expected"), [("cls_token_id", [2, 7, 3]), ("seperator_token_id", [2, 7]), ("bos_token_id", [7])]
)
def test_a_vocabulary_is_not_asked_to_add_what_it_does_not_have(
    library: Library, tmp_path: Path, absent: str, expected: list[int]
) -> None:
    sound = Document.read(write_tiny_family(tmp_path / "sound.gguf", "bert").read_bytes())
    path = tmp_path / "odd.gguf"
    path.write_bytes(sound.without_pair(f"tokenizer.ggml.{absent}").to_bytes())
    read_gguf(path)
    engine = LlamaEngine(library, path, LoadOptions(64, max_sequences=1, num_batch=32, num_thread=1))
    try:
        assert engine.tokenize("world", add_special=True, parse_special=False) == expected
        assert engine.tokenize_whole("world", parse_special=False).tokens == expected
    finally:
        engine.close()
