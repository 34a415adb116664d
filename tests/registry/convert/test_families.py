"""A converted model computes what its family's definition says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from registry.convert.convert import convert
from registry.gguf_metadata import read_gguf
from tests.registry.convert.checkpoints import (
    LLAMA3_PATTERN,
    QWEN2_PATTERN,
    Weights,
    bert_weights,
    byte_level_tokenizer,
    decoder_config,
    decoder_weights,
    rounded,
    sentencepiece_model,
    tiny_pieces,
    write_checkpoint,
)
from tests.registry.convert.engine import engine_embedding, engine_logits
from tests.registry.convert.reference import bert_embedding, decoder_logits

TOKENS = [259, 104, 12, 7, 256, 33, 33, 90, 258, 1, 2, 3, 200, 150, 77, 18]

QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
GEMMA = decoder_config(
    "Gemma3ForCausalLM",
    6,
    head_dim=32,
    hidden_activation="gelu_pytorch_tanh",
    query_pre_attn_scalar=32,
    sliding_window=4,
    layer_types=["sliding_attention", "sliding_attention", "full_attention"] * 2,
    rope_theta=1_000_000.0,
    rope_local_base_freq=10000.0,
    tie_word_embeddings=True,
)
GEMMA_NORMS = ("pre_feedforward_layernorm", "post_feedforward_layernorm")


def tokenizer(pattern: str) -> Mapping[str, object]:
    return {"tokenizer.json": byte_level_tokenizer(pattern)}


def gemma_tokenizer() -> Mapping[str, object]:
    return {"tokenizer.model": sentencepiece_model(tiny_pieces(), prefix=False)}


CASES: dict[str, tuple[dict[str, Any], Weights, Mapping[str, object]]] = {}


def case(name: str, config: dict[str, Any], files: Mapping[str, object], **weights: Any) -> None:
    CASES[name] = config, decoder_weights(config, **weights), files


case("llama", decoder_config("LlamaForCausalLM", 2), tokenizer(LLAMA3_PATTERN))
case("llama, tied", decoder_config("LlamaForCausalLM", 2, tie_word_embeddings=True), tokenizer(LLAMA3_PATTERN))
case("llama 3.1", decoder_config("LlamaForCausalLM", 2, rope_scaling=LLAMA3_ROPE), tokenizer(LLAMA3_PATTERN))
case(
    "llama, stretched",
    decoder_config("LlamaForCausalLM", 2, rope_scaling={"rope_type": "linear", "factor": 2.0}),
    tokenizer(LLAMA3_PATTERN),
)
case("llama, wide heads", decoder_config("LlamaForCausalLM", 2, head_dim=32), tokenizer(LLAMA3_PATTERN))
case(
    "llama, biased",
    decoder_config("LlamaForCausalLM", 2, attention_bias=True),
    tokenizer(LLAMA3_PATTERN),
    biases=(*QKV, "self_attn.o_proj"),
)
case("qwen2", decoder_config("Qwen2ForCausalLM", 2), tokenizer(QWEN2_PATTERN), biases=QKV)
case("qwen3", decoder_config("Qwen3ForCausalLM", 2, head_dim=32), tokenizer(QWEN2_PATTERN), head_norms=True)
case("gemma3", GEMMA, gemma_tokenizer(), norms=GEMMA_NORMS, head_norms=True)
case(
    "gemma3, stretched",
    {**GEMMA, "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
    gemma_tokenizer(),
    norms=GEMMA_NORMS,
    head_norms=True,
)


_WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hell", "##o", "world", *(f"w{n}" for n in range(40))]
BERT = {
    "architectures": ["BertModel"],
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "max_position_embeddings": 64,
    "layer_norm_eps": 1e-12,
    "type_vocab_size": 2,
    "vocab_size": len(_WORDS),
    "hidden_act": "gelu",
}
BERT_FILES = {"vocab.txt": "\n".join(_WORDS)}
BERT_TOKENS = [2, 5, 6, 7, 20, 21, 3]


@pytest.mark.parametrize("name", CASES)
def test_a_decoders_logits_are_those_of_its_definition(tmp_path: Path, name: str) -> None:
    config, weights, files = CASES[name]
    folder = write_checkpoint(tmp_path / "checkpoint", config, weights, files=files)
    convert(folder, tmp_path / "out.gguf")
    expected = decoder_logits(config, weights, TOKENS)
    np.testing.assert_allclose(engine_logits(tmp_path / "out.gguf", TOKENS), expected, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize(("dtype", "tolerance"), [("F16", 0.05), ("BF16", 0.3)])
@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_half_precision_is_kept_bit_for_bit(tmp_path: Path, name: str, dtype: str, tolerance: float) -> None:
    config, weights, files = CASES[name]
    folder = write_checkpoint(tmp_path / "checkpoint", config, weights, dtype=dtype, files=files)
    convert(folder, tmp_path / "out.gguf")
    assert read_gguf(tmp_path / "out.gguf").file_type_name == dtype
    expected = decoder_logits(config, rounded(weights, dtype), TOKENS)
    # The engine rounds what it multiplies such weights with.
    np.testing.assert_allclose(engine_logits(tmp_path / "out.gguf", TOKENS), expected, atol=tolerance)


def test_a_bert_gives_the_embedding_of_its_definition(tmp_path: Path) -> None:
    weights = bert_weights(BERT)
    folder = write_checkpoint(tmp_path / "checkpoint", BERT, weights, files=BERT_FILES)
    convert(folder, tmp_path / "out.gguf")
    expected = bert_embedding(BERT, weights, BERT_TOKENS)
    np.testing.assert_allclose(engine_embedding(tmp_path / "out.gguf", BERT_TOKENS), expected, atol=2e-3)


def test_the_same_checkpoint_gives_the_same_bytes_in_one_file_or_in_several(tmp_path: Path) -> None:
    config, weights, files = CASES["llama"]
    for number, shards in enumerate((1, 1, 3)):
        folder = write_checkpoint(tmp_path / f"c{number}", config, weights, files=files, shards=shards)
        convert(folder, tmp_path / f"{number}.gguf")
    first = (tmp_path / "0.gguf").read_bytes()
    assert first == (tmp_path / "1.gguf").read_bytes() == (tmp_path / "2.gguf").read_bytes()
