"""Gemma 3, its text model."""

from __future__ import annotations

import math
from dataclasses import replace

import gguf
import numpy as np

from registry.convert import decoder
from registry.convert.checkpoint import Array
from registry.convert.config import Config
from registry.convert.family import Family, Target
from registry.errors import Unsupported

_PARTS = {
    **decoder.PARTS,
    **decoder.HEAD_NORMS,
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
_PATTERN = 6
"""Every so many blocks one attends to everything; the engine's own default."""
_LARGEST_BLOCKS = 62
"""The 27B model has so many blocks, and alone scales attention by its width."""
_LOCAL_ROPE_BASE = 10000.0


def _describe(config: Config, writer: gguf.GGUFWriter) -> None:
    config.require("hidden_activation", "gelu_pytorch_tanh")
    _check_scale(config)
    if config.has("attn_logit_softcapping"):
        raise Unsupported("config.json caps attention logits, which the engine does not do for this family.")
    decoder.describe(config, writer, rope_base=1_000_000.0)
    decoder.describe_rope_scaling(config, writer, "linear")
    decoder.describe_head_width(config, writer)
    writer.add_sliding_window(config.count("sliding_window", 4096))
    writer.add_uint32("gemma3.attention.sliding_window_pattern", _pattern(config))
    local_base = decoder.rope_value(config, "rope_local_base_freq", _LOCAL_ROPE_BASE)
    writer.add_float32("gemma3.rope.freq_base_swa", local_base)
    if config.has("final_logit_softcapping"):
        writer.add_final_logit_softcapping(config.number("final_logit_softcapping"))


def _check_scale(config: Config) -> None:
    """The engine scales attention as it knows from the number of blocks."""
    width = decoder.head_width(config)
    if config.count("num_hidden_layers") == _LARGEST_BLOCKS:
        width = config.count("hidden_size") // config.count("num_attention_heads")
    if not math.isclose(config.number("query_pre_attn_scalar", 256.0), width):
        raise Unsupported("config.json scales attention otherwise than the engine does (query_pre_attn_scalar).")


def _pattern(config: Config) -> int:
    """How many blocks lie between two that attend to everything. Raises Unsupported for no regular pattern."""
    kinds = config.texts("layer_types")
    if not kinds:
        return config.count("sliding_window_pattern", _PATTERN)
    full = [number for number, kind in enumerate(kinds) if kind == "full_attention"]
    # Without any, one larger than all blocks has the same effect.
    pattern = full[0] + 1 if full else len(kinds) + 1
    if full != list(range(pattern - 1, len(kinds), pattern)):
        raise Unsupported("config.json mixes kinds of attention in no regular pattern (layer_types).")
    return pattern


def _place(name: str, config: Config) -> Target | None:
    target = decoder.place(name, config, _PARTS)
    is_norm = target is not None and target.name.endswith("norm.weight")
    # Checkpoints hold what is to be added to 1.
    return replace(target, change=_add_one) if target is not None and is_norm else target


def _add_one(data: Array) -> Array:
    return data + np.float32(1)


FAMILY = Family("gemma3", ("Gemma3ForCausalLM",), _describe, _place)
