"""Qwen 2 and 2.5."""

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
)


def _describe(config: Config, writer: gguf.GGUFWriter) -> None:
    config.require("hidden_act", "silu")
    config.require("use_sliding_window", False)
    describe_decoder(config, writer, rope_base=1_000_000.0)
    describe_rope_scaling(config, writer, "yarn")


def _place(name: str, config: Config) -> Target | None:
    target = decoder_target(name, config, DECODER_PARTS)
    return None if target is None else Target(target)


FAMILY = Family("qwen2", ("Qwen2ForCausalLM",), _describe, _place)
