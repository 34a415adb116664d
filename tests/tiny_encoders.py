"""Writes random-weight GGUF files of models that make vectors or score documents."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CLS, SEP = 2, 3
LETTERS = "abcdefghijklmnopqrstuvwxyz"
_WIDTH, _HEADS, _HIDDEN, _LAYERS = 32, 2, 64, 2


def write_tiny_bert(
    path: Path,
    *,
    pooling: gguf.PoolingType = gguf.PoolingType.MEAN,
    context_length: int = 64,
    seed: int = 1,
    poison: str | None = None,
) -> Path:
    """A BERT of two layers whose vocabulary is the letters; with rank pooling it has a head that scores.

    The vector of a text with the letter `poison` holds NaN.
    """
    generator = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_context_length(context_length)
    writer.add_embedding_length(_WIDTH)
    writer.add_block_count(_LAYERS)
    writer.add_feed_forward_length(_HIDDEN)
    writer.add_head_count(_HEADS)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(pooling)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    tokens = [*PIECES, *(f"▁{letter}" for letter in LETTERS), *LETTERS]
    writer.add_tokenizer_model("bert")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL] * len(PIECES) + [gguf.TokenType.NORMAL] * (2 * len(LETTERS)))
    writer.add_token_type_count(2)
    writer.add_unk_token_id(1)
    writer.add_bos_token_id(CLS)
    writer.add_sep_token_id(SEP)
    writer.add_eos_token_id(SEP)
    writer.add_pad_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(True)

    def add(name: str, *shape: int, scale: float = 0.3) -> None:
        data = generator.normal(0, scale, shape).astype(np.float32)
        if name == "token_embd.weight" and poison is not None:
            for piece in (poison, f"▁{poison}"):
                data[tokens.index(piece)] = np.nan
        writer.add_tensor(name, data)

    def add_norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(_WIDTH, dtype=np.float32))
        writer.add_tensor(f"{name}.bias", np.zeros(_WIDTH, dtype=np.float32))

    def add_linear(name: str, outputs: int, inputs: int) -> None:
        add(f"{name}.weight", outputs, inputs)
        add(f"{name}.bias", outputs)

    add("token_embd.weight", len(tokens), _WIDTH, scale=1.0)
    add("token_types.weight", 2, _WIDTH)
    add("position_embd.weight", context_length, _WIDTH)
    add_norm("token_embd_norm")
    for layer in range(_LAYERS):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add_linear(f"blk.{layer}.{name}", _WIDTH, _WIDTH)
        add_norm(f"blk.{layer}.attn_output_norm")
        add_linear(f"blk.{layer}.ffn_up", _HIDDEN, _WIDTH)
        add_linear(f"blk.{layer}.ffn_down", _WIDTH, _HIDDEN)
        add_norm(f"blk.{layer}.layer_output_norm")
    if pooling is gguf.PoolingType.RANK:
        add_linear("cls", _WIDTH, _WIDTH)
        add_linear("cls.output", 1, _WIDTH)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
