"""Qwen 2, 2.5 and 3, dense."""

from __future__ import annotations

from functools import partial

import gguf

from registry.convert import decoder
from registry.convert.config import Config
from registry.convert.family import Family


def _describe(config: Config, writer: gguf.GGUFWriter) -> None:
    config.require("hidden_act", "silu")
    config.require("use_sliding_window", False)
    decoder.describe(config, writer, rope_base=1_000_000.0)
    decoder.describe_rope_scaling(config, writer, "yarn")


def _describe_third(config: Config, writer: gguf.GGUFWriter) -> None:
    _describe(config, writer)
    decoder.describe_head_width(config, writer)


QWEN2 = Family("qwen2", ("Qwen2ForCausalLM",), _describe, decoder.place)
QWEN3 = Family(
    "qwen3",
    ("Qwen3ForCausalLM",),
    _describe_third,
    partial(decoder.place, parts={**decoder.PARTS, **decoder.HEAD_NORMS}),
)
