"""Llama, and those built like it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import gguf

from registry.convert import decoder
from registry.convert.checkpoint import Array
from registry.convert.config import Config
from registry.convert.family import Family, Target
from registry.errors import Unsupported


def _describe(config: Config, writer: gguf.GGUFWriter) -> None:
    config.require("hidden_act", "silu")
    if config.has("sliding_window"):
        raise Unsupported("The model attends through a sliding window, which the engine would not honour for it.")
    decoder.describe(config, writer)
    decoder.describe_rope_scaling(config, writer, "linear", "llama3", "yarn")
    writer.add_rope_dimension_count(decoder.head_width(config))
    if config.has("head_dim"):
        decoder.describe_head_width(config, writer)


def _place(name: str, config: Config) -> Target | None:
    target = decoder.place(name, config)
    if target is None:
        return None
    heads = config.count("num_attention_heads")
    if ".attn_q." in target.name:
        return replace(target, reorder=partial(interleave, heads=heads))
    if ".attn_k." in target.name:
        return replace(target, reorder=partial(interleave, heads=config.count("num_key_value_heads", heads)))
    return target


def interleave(rows: Array, heads: int) -> Array:
    """Put the two halves of each head in turns: the engine rotates neighbours, checkpoints rotate halves."""
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)


FAMILY = Family("llama", ("LlamaForCausalLM", "MistralForCausalLM"), _describe, _place, decoder.llama3_frequencies)
