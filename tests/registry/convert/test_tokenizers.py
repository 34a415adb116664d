"""The engine makes the tokens that the checkpoint's own tokenizer makes."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.convert.bytelevel import read_byte_level
from registry.convert.checkpoint import Checkpoint
from registry.convert.convert import convert
from registry.convert.sentencepiece import read_sentencepiece
from registry.convert.vocabulary import read_vocabulary
from registry.errors import ModelInvalid, RegistryError, Unsupported
from registry.gguf_metadata import read_gguf
from tests.registry.convert.checkpoints import (
    LLAMA3_PATTERN,
    QWEN2_PATTERN,
    bert_weights,
    byte_level_tokenizer,
    decoder_config,
    decoder_weights,
    sentencepiece_model,
    tiny_pieces,
    write_checkpoint,
)
from tests.registry.convert.engine import engine_tokens


def checkpoint(folder: Path, files: Mapping[str, object], architecture: str = "LlamaForCausalLM") -> Path:
    config = decoder_config(architecture, 1, eos_token_id=[260, 1])
    return write_checkpoint(folder, config, decoder_weights(config), files=files)


def test_bytes_are_merged_and_special_tokens_found(tmp_path: Path) -> None:
    files = {
        "tokenizer.json": byte_level_tokenizer(LLAMA3_PATTERN, begins=True),
        "tokenizer_config.json": {"bos_token": "<|begin|>", "eos_token": {"content": "<|end|>"}},
        "chat_template.jinja": "{{ messages }}",
    }
    convert(checkpoint(tmp_path / "c", files), tmp_path / "out.gguf")
    assert engine_tokens(tmp_path / "out.gguf", "hello", add_special=True) == [259, 258, 111]
    assert engine_tokens(tmp_path / "out.gguf", "<|end|><tool>he") == [260, 261, 256]
    values = read_gguf(tmp_path / "out.gguf").values
    assert values["tokenizer.ggml.pre"] == "llama-bpe"
    assert values["tokenizer.ggml.bos_token_id"] == 259 and values["tokenizer.ggml.eos_token_id"] == 260
    assert values["tokenizer.ggml.add_bos_token"] is True
    assert values["tokenizer.chat_template"] == "{{ messages }}"


@pytest.mark.parametrize(
    ("pre_tokenizer", "name"),
    [
        (byte_level_tokenizer(LLAMA3_PATTERN)["pre_tokenizer"], "llama-bpe"),
        (byte_level_tokenizer(QWEN2_PATTERN)["pre_tokenizer"], "qwen2"),
        ({"type": "ByteLevel", "use_regex": True}, "gpt-2"),
        (
            {
                "type": "Sequence",
                "pretokenizers": [{"type": "Digits", "individual_digits": True}, {"type": "ByteLevel"}],
            },
            "smollm",
        ),
    ],
)
def test_ways_to_split_text_are_recognized(pre_tokenizer: dict[str, Any], name: str) -> None:
    document = {**byte_level_tokenizer(None), "pre_tokenizer": pre_tokenizer}
    assert read_byte_level(document).pre == name


@pytest.mark.parametrize(
    "pre_tokenizer",
    [
        byte_level_tokenizer(r"\s+")["pre_tokenizer"],
        {"type": "Whitespace"},
        {"type": "Sequence", "pretokenizers": [{"type": "Digits"}, {"type": "ByteLevel"}]},
    ],
)
def test_a_way_to_split_text_that_the_engine_does_not_know_is_refused(pre_tokenizer: dict[str, Any]) -> None:
    with pytest.raises(Unsupported, match="tokenizer"):
        read_byte_level({**byte_level_tokenizer(None), "pre_tokenizer": pre_tokenizer})


def test_pieces_are_merged_by_their_scores(tmp_path: Path) -> None:
    files = {
        "tokenizer.model": sentencepiece_model(tiny_pieces()),
        "tokenizer_config.json": {"bos_token": "<bos>", "eos_token": "<eos>", "add_bos_token": True},
    }
    convert(checkpoint(tmp_path / "c", files), tmp_path / "out.gguf")
    blank, h = 260, 261
    assert engine_tokens(tmp_path / "out.gguf", "hello", add_special=True) == [2, blank, 267, h + 3]
    assert engine_tokens(tmp_path / "out.gguf", "é") == [blank, 4 + 0xC3, 4 + 0xA9]


def test_pieces_told_as_merges_give_the_same_tokens(tmp_path: Path) -> None:
    pieces = tiny_pieces()
    document = {
        "added_tokens": [{"id": n, "content": pieces[n][0], "special": True} for n in range(4)],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}]},
        "model": {
            "type": "BPE",
            "byte_fallback": True,
            "unk_token": "<unk>",
            "vocab": {text: number for number, (text, _, _) in enumerate(pieces)},
            "merges": ["h e", "l l", "he ll"],
        },
    }
    settings = {"bos_token": "<bos>", "eos_token": "<eos>"}
    told = {"tokenizer.json": document, "tokenizer_config.json": settings}
    modelled = {"tokenizer.model": sentencepiece_model(pieces), "tokenizer_config.json": settings}
    for name, files in (("told", told), ("modelled", modelled)):
        convert(checkpoint(tmp_path / name, files), tmp_path / f"{name}.gguf")
    for text in ("hello", "he ll hell", "olleh", "ünï"):
        assert engine_tokens(tmp_path / "told.gguf", text) == engine_tokens(tmp_path / "modelled.gguf", text)


def test_words_are_found_piece_by_piece(tmp_path: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hell", "##o", "hello", "world", "##ly", "."]
    config = {
        "architectures": ["BertModel"], "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4,
        "num_hidden_layers": 1, "max_position_embeddings": 64, "type_vocab_size": 2, "vocab_size": len(words),
    }  # fmt: skip
    document = {
        "normalizer": {"type": "BertNormalizer", "lowercase": True, "strip_accents": None},
        "model": {"type": "WordPiece", "vocab": {word: number for number, word in enumerate(words)}},
    }
    settings = {"cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]", "pad_token": "[PAD]"}
    files = {"tokenizer.json": document, "tokenizer_config.json": settings}
    folder = write_checkpoint(tmp_path / "c", config, bert_weights(config), files=files)
    convert(folder, tmp_path / "out.gguf")
    assert engine_tokens(tmp_path / "out.gguf", "Héllo worldly x.", add_special=True) == [2, 7, 8, 9, 1, 10, 3]


@pytest.mark.parametrize("files", [("vocab.txt",), ("tokenizer.json",)])
def test_berts_special_tokens_are_found_where_nothing_names_them(tmp_path: Path, files: tuple[str, ...]) -> None:
    words = ["[PAD]", "hell", "##o", "", "[MASK]", "[SEP]", "[CLS]", "[UNK]", ""]
    vocabulary = {word: number for number, word in enumerate(words) if word}
    config = decoder_config("BertModel", 1, vocab_size=len(words))
    told = {"vocab.txt": "\n".join(word or f"[unused{n}]" for n, word in enumerate(words)),
            "tokenizer.json": {"model": {"type": "WordPiece", "vocab": vocabulary}}}  # fmt: skip
    folder = write_checkpoint(tmp_path / "c", config, {}, files={name: told[name] for name in files})
    found = read_vocabulary(Checkpoint(folder))
    assert found.special == {
        "padding_token_id": 0, "mask_token_id": 4, "seperator_token_id": 5, "cls_token_id": 6, "bos_token_id": 6,
        "unknown_token_id": 7,
    }  # fmt: skip
    assert len(set(found.tokens.texts)) == len(words)


def changed(change: Any) -> dict[str, object]:
    document = copy.deepcopy(byte_level_tokenizer(LLAMA3_PATTERN))
    change(document)
    return {"tokenizer.json": document}


@pytest.mark.parametrize(
    ("files", "error", "complaint"),
    [
        ({}, ModelInvalid, "no tokenizer.json, tokenizer.model or vocab.txt"),
        ({"tokenizer.json": "[1"}, ModelInvalid, "tokenizer.json is not JSON"),
        ({"tokenizer.json": "[" * 100_000}, ModelInvalid, "tokenizer.json is not JSON"),
        ({"tokenizer.json": {"model": {"type": "Unigram"}}}, Unsupported, "'Unigram'"),
        ({"tokenizer.model": sentencepiece_model(tiny_pieces(), model_type=1)}, Unsupported, "unigram"),
        ({"tokenizer.model": b"\x0a\xff\xff\xff\x7f"}, ModelInvalid, "ends too early"),
        ({"tokenizer.model": b""}, ModelInvalid, "no pieces"),
        (changed(lambda d: d["model"].update(merges=["a b c"])), ModelInvalid, "not of two tokens"),
        (changed(lambda d: d["model"]["vocab"].update(x=3)), ModelInvalid, "no id of its own"),
        (changed(lambda d: d["model"]["vocab"].update(x=10**9)), ModelInvalid, "no id of its own"),
        (changed(lambda d: d["added_tokens"].append({"id": 7, "content": "y"})), ModelInvalid, "has the id of"),
        (changed(lambda d: d["added_tokens"].append({"id": 900, "content": "y"})), ModelInvalid, "says 300"),
        (changed(lambda d: d["added_tokens"].append({"content": "y"})), ModelInvalid, "without id and text"),
    ],
)
def test_a_tokenizer_that_is_not_sound_is_refused(
    tmp_path: Path, files: dict[str, object], error: type[RegistryError], complaint: str
) -> None:
    with pytest.raises(error, match=complaint):
        read_vocabulary(Checkpoint(checkpoint(tmp_path / "c", files)))


@given(st.binary(max_size=200))
def test_no_bytes_make_the_reader_of_pieces_stumble(content: bytes) -> None:
    try:
        tokens = read_sentencepiece(content)
    except (ModelInvalid, Unsupported):
        return
    assert len(tokens.texts) == len(tokens.kinds) == len(tokens.scores)
