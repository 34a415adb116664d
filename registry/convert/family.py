"""What the converter asks of a family of models, and what several families have in common."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import gguf
import numpy as np

from registry.convert.checkpoint import Array
from registry.convert.config import Config
from registry.errors import Unsupported

_BLOCK = re.compile(r"(?:model\.)?layers\.(\d+)\.(.+)\.(weight|bias)")

Change = Callable[[Array], Array]


@dataclass(frozen=True, slots=True)
class Target:
    """What becomes of a checkpoint's tensor."""

    name: str
    """In the GGUF file."""
    reorder: Change | None = None
    """Moves rows; sees the data in its stored type."""
    change: Change | None = None
    """Computes; sees and gives F32."""
    is_full: bool = False
    """The engine adds it up with others and takes it in F32 alone."""


@dataclass(frozen=True, slots=True)
class Family:
    """Models that share a graph."""

    architecture: str
    """In the GGUF file."""
    classes: tuple[str, ...]
    """What `architectures` says in config.json."""
    describe: Callable[[Config, gguf.GGUFWriter], None]
    """Writes the hyperparameters. Raises Unsupported for what the engine would compute otherwise."""
    place: Callable[[str, Config], Target | None]
    """Where a tensor goes; None leaves it out. Raises Unsupported for one that is not known."""
    additions: Callable[[Config], Mapping[str, Array]] = lambda _: {}
    """Tensors that the checkpoint has no data for."""


DECODER_PARTS: Mapping[str, str] = {
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
_OUTER = {
    "embed_tokens.weight": "token_embd.weight",
    "norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_COMPUTED_ANEW = ("rotary_emb.inv_freq",)


def decoder_target(name: str, config: Config, parts: Mapping[str, str]) -> str | None:
    """The GGUF name of a tensor of a decoder-only model. Raises Unsupported for one that is not known."""
    if name.endswith(_COMPUTED_ANEW):
        return None
    outer = _OUTER.get(name.removeprefix("model."))
    if outer == "output.weight" and config.is_true("tie_word_embeddings"):
        return None
    if outer is not None:
        return outer
    match = _BLOCK.fullmatch(name)
    part = parts.get(match[2]) if match else None
    if match is None or part is None:
        raise unknown_tensor(name)
    return f"blk.{int(match[1])}.{part}.{match[3]}"


def describe_decoder(config: Config, writer: gguf.GGUFWriter, *, rope_base: float = 10000.0) -> None:
    """The hyperparameters that decoder-only families share."""
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


def head_width(config: Config) -> int:
    return config.count("head_dim", config.count("hidden_size") // config.count("num_attention_heads"))


def rope_value(config: Config, name: str, default: float) -> float:
    """A number of the rotary embedding, which newer checkpoints keep in a table of its own."""
    table = config.table("rope_parameters")
    return table.number(name) if table.has(name) else config.number(name, default)


def describe_rope_scaling(config: Config, writer: gguf.GGUFWriter, *known: str) -> str:
    """Write how positions are stretched, and return its kind. Raises Unsupported for a kind that is not known."""
    table = config.table("rope_parameters" if config.table("rope_parameters").has("rope_type") else "rope_scaling")
    kind = table.text("rope_type") or table.text("type") or "default"
    if kind not in ("default", *known):
        raise Unsupported(f"config.json asks for {kind!a} rope scaling; converted are {', '.join(known)}.")
    if kind == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(table.number("factor"))
    elif kind == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(table.number("factor"))
        writer.add_rope_scaling_orig_ctx_len(table.count("original_max_position_embeddings"))
    return kind


def llama3_frequencies(config: Config) -> Mapping[str, Array]:
    """The factors by which Llama 3 slows the low frequencies of its rotary embedding down."""
    table = config.table("rope_parameters" if config.table("rope_parameters").has("rope_type") else "rope_scaling")
    if (table.text("rope_type") or table.text("type")) != "llama3":
        return {}
    width, base = head_width(config), rope_value(config, "rope_theta", 10000.0)
    factor = table.number("factor", 8.0)
    low, high = table.number("low_freq_factor", 1.0), table.number("high_freq_factor", 4.0)
    original = table.number("original_max_position_embeddings", 8192)
    lengths = 2 * math.pi * base ** (np.arange(0, width, 2, dtype=np.float64) / width)
    smooth = np.clip((original / lengths - low) / (high - low), 0.0, 1.0)
    return {"rope_freqs.weight": (1 / ((1 - smooth) / factor + smooth)).astype(np.float32)}


def unknown_tensor(name: str) -> Unsupported:
    return Unsupported(f"The tensor {name[:80]!a} has no place in models of this family.")
