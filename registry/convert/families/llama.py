"""Llama, and those built like it."""

from __future__ import annotations

from functools import partial

import gguf

from registry.convert.checkpoint import Array
from registry.convert.config import Config
from registry.convert.family import (
    DECODER_PARTS,
    Family,
    Target,
    decoder_target,
    describe_decoder,
    describe_rope_scaling,
    head_width,
    llama3_frequencies,
)
from registry.errors import Unsupported


def _describe(config: Config, writer: gguf.GGUFWriter) -> None:
    config.require("hidden_act", "silu")
    if config.has("sliding_window"):
        raise Unsupported("The model attends through a sliding window, which the engine would not honour for it.")
    describe_decoder(config, writer)
    describe_rope_scaling(config, writer, "linear", "llama3", "yarn")
    writer.add_rope_dimension_count(head_width(config))
    if config.has("head_dim"):
        writer.add_key_length(head_width(config))
        writer.add_value_length(head_width(config))


def _place(name: str, config: Config) -> Target | None:
    target = decoder_target(name, config, DECODER_PARTS)
    if target is None:
        return None
    heads = config.count("num_attention_heads")
    if ".attn_q." in target:
        return Target(target, reorder=partial(interleave, heads=heads))
    if ".attn_k." in target:
        return Target(target, reorder=partial(interleave, heads=config.count("num_key_value_heads", heads)))
    return Target(target)


def interleave(rows: Array, heads: int) -> Array:
    """Put the two halves of each head in turns: the engine rotates neighbours, checkpoints rotate halves."""
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)


FAMILY = Family("llama", ("LlamaForCausalLM", "MistralForCausalLM"), _describe, _place, llama3_frequencies)
