"""Qwen 3, dense."""

from __future__ import annotations

import gguf

from registry.convert.config import Config
from registry.convert.family import (
    DECODER_PARTS,
    Family,
    Target,
    decoder_target,
    describe_decoder,
    describe_rope_scaling,
    head_width,
)

_PARTS = {**DECODER_PARTS, "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"}


def _describe(config: Config, writer: gguf.GGUFWriter) -> None:
    config.require("hidden_act", "silu")
    config.require("use_sliding_window", False)
    describe_decoder(config, writer, rope_base=1_000_000.0)
    describe_rope_scaling(config, writer, "yarn")
    writer.add_key_length(head_width(config))
    writer.add_value_length(head_width(config))


def _place(name: str, config: Config) -> Target | None:
    target = decoder_target(name, config, _PARTS)
    return None if target is None else Target(target)


FAMILY = Family("qwen3", ("Qwen3ForCausalLM",), _describe, _place)
