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
