"""BERT as a model for embeddings."""

from __future__ import annotations

import re

import gguf

from registry.convert.config import Config
from registry.convert.family import Family, Target, unknown_tensor

_OUTER = {
    "embeddings.word_embeddings.weight": "token_embd.weight",
    "embeddings.token_type_embeddings.weight": "token_types.weight",
    "embeddings.position_embeddings.weight": "position_embd.weight",
    "embeddings.LayerNorm.weight": "token_embd_norm.weight",
    "embeddings.LayerNorm.bias": "token_embd_norm.bias",
}
_ADDED = ("embeddings.token_type_embeddings.weight", "embeddings.position_embeddings.weight")
_PARTS = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
_BLOCK = re.compile(r"encoder\.layer\.(\d+)\.(.+)\.(weight|bias)")
_NOT_FOR_EMBEDDINGS = ("embeddings.position_ids", "pooler.", "cls.")


def _describe(config: Config, writer: gguf.GGUFWriter) -> None:
    config.require("hidden_act", "gelu")
    config.require("position_embedding_type", "absolute")
    writer.add_block_count(config.count("num_hidden_layers"))
    writer.add_context_length(config.count("max_position_embeddings"))
    writer.add_embedding_length(config.count("hidden_size"))
    writer.add_feed_forward_length(config.count("intermediate_size"))
    writer.add_head_count(config.count("num_attention_heads"))
    writer.add_layer_norm_eps(config.number("layer_norm_eps", 1e-12))
    writer.add_causal_attention(False)
    writer.add_token_type_count(config.count("type_vocab_size", 2))
    writer.add_vocab_size(config.count("vocab_size"))


def _place(name: str, config: Config) -> Target | None:
    name = name.removeprefix("bert.")
    # Old checkpoints have TensorFlow's names for the two parts of a norm.
    name = re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", name))
    if name.startswith(_NOT_FOR_EMBEDDINGS):
        return None
    if name in _OUTER:
        return Target(_OUTER[name], is_full=name in _ADDED)
    match = _BLOCK.fullmatch(name)
    part = _PARTS.get(match[2]) if match else None
    if match is None or part is None:
        raise unknown_tensor(name)
    return Target(f"blk.{int(match[1])}.{part}.{match[3]}")


FAMILY = Family("bert", ("BertModel", "BertForMaskedLM"), _describe, _place, is_pooled=True)
