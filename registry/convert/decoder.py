"""What families of decoder-only models have in common: the names of their tensors, and how positions are told apart."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import gguf
import numpy as np

from registry.convert.checkpoint import Array
from registry.convert.config import Config
from registry.convert.family import Target, unknown_tensor
from registry.errors import Unsupported

PARTS: Mapping[str, str] = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
HEAD_NORMS: Mapping[str, str] = {"self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"}
"""Parts that only some families have."""

_BLOCK = re.compile(r"(?:model\.)?layers\.(\d+)\.(.+)\.(weight|bias)")
_OUTER = {
    "embed_tokens.weight": "token_embd.weight",
    "norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_COMPUTED_ANEW = ("rotary_emb.inv_freq",)


def place(name: str, config: Config, parts: Mapping[str, str] = PARTS) -> Target | None:
    """Where a tensor goes; None leaves it out. Raises Unsupported for one that is not known."""
    if name.endswith(_COMPUTED_ANEW):
        return None
    outer = _OUTER.get(name.removeprefix("model."))
    if outer == "output.weight" and config.is_true("tie_word_embeddings"):
        return None
    if outer is not None:
        return Target(outer)
    match = _BLOCK.fullmatch(name)
    part = parts.get(match[2]) if match else None
    if match is None or part is None:
        raise unknown_tensor(name)
    return Target(f"blk.{int(match[1])}.{part}.{match[3]}")


def describe(config: Config, writer: gguf.GGUFWriter, *, rope_base: float = 10000.0) -> None:
    """The hyperparameters that all of them have."""
    heads = config.count("num_attention_heads")
    writer.add_block_count(config.count("num_hidden_layers"))
    writer.add_context_length(config.count("max_position_embeddings", 2048))
    writer.add_embedding_length(config.count("hidden_size"))
    writer.add_feed_forward_length(config.count("intermediate_size"))
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.count("num_key_value_heads", heads))
    writer.add_layer_norm_rms_eps(config.number("rms_norm_eps", 1e-6))
    writer.add_rope_freq_base(rope_value(config, "rope_theta", rope_base))
    writer.add_vocab_size(config.count("vocab_size"))


def describe_head_width(config: Config, writer: gguf.GGUFWriter) -> None:
    """For families whose heads need not divide the width."""
    writer.add_key_length(head_width(config))
    writer.add_value_length(head_width(config))


def head_width(config: Config) -> int:
    return config.count("head_dim", config.count("hidden_size") // config.count("num_attention_heads"))


def rope_value(config: Config, name: str, default: float) -> float:
    """A number of the rotary embedding, which newer checkpoints keep in a table of its own."""
    table = config.table("rope_parameters")
    return table.number(name) if table.has(name) else config.number(name, default)


def describe_rope_scaling(config: Config, writer: gguf.GGUFWriter, *known: str) -> None:
    """Write how positions are stretched. Raises Unsupported for a kind that is not known."""
    kind, table = _rope_scaling(config)
    if kind not in ("default", *known):
        raise Unsupported(f"config.json asks for {kind!a} rope scaling; converted are {', '.join(known)}.")
    if kind == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(table.number("factor"))
    elif kind == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(table.number("factor"))
        writer.add_rope_scaling_orig_ctx_len(table.count("original_max_position_embeddings"))


def llama3_frequencies(config: Config) -> Mapping[str, Array]:
    """The factors by which Llama 3 slows the low frequencies of its rotary embedding down."""
    kind, table = _rope_scaling(config)
    if kind != "llama3":
        return {}
    width, base = head_width(config), rope_value(config, "rope_theta", 10000.0)
    factor = table.number("factor", 8.0)
    low, high = table.number("low_freq_factor", 1.0), table.number("high_freq_factor", 4.0)
    original = table.number("original_max_position_embeddings", 8192)
    lengths = 2 * math.pi * base ** (np.arange(0, width, 2, dtype=np.float64) / width)
    smooth = np.clip((original / lengths - low) / (high - low), 0.0, 1.0)
    return {"rope_freqs.weight": (1 / ((1 - smooth) / factor + smooth)).astype(np.float32)}


def _rope_scaling(config: Config) -> tuple[str, Config]:
    """How positions are stretched, and the figures of that."""
    table = config.table("rope_parameters" if config.table("rope_parameters").has("rope_type") else "rope_scaling")
    return table.text("rope_type") or table.text("type") or "default", table
