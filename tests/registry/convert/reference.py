"""What each family computes, written down once more in plain numpy and double precision."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tests.registry.convert.checkpoints import Weights

Array = Any  # arithmetic on arrays of any type gives Any


def decoder_logits(config: Mapping[str, Any], weights: Weights, tokens: Sequence[int]) -> Array:
    """The logits after every token, of Llama, Qwen 2, Qwen 3 and Gemma 3."""
    w = {name: data.astype(np.float64) for name, data in weights.items()}
    is_gemma = "Gemma" in config["architectures"][0]
    eps = config["rms_norm_eps"]

    def norm(x: Array, name: str) -> Array:
        scaled = x / np.sqrt((x**2).mean(-1, keepdims=True) + eps)
        return scaled * (w[name] + 1 if is_gemma else w[name])

    hidden = w["model.embed_tokens.weight"][list(tokens)]
    if is_gemma:
        hidden = hidden * math.sqrt(config["hidden_size"])
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        attended = _attention(config, w, prefix, layer, norm(hidden, f"{prefix}input_layernorm.weight"), norm)
        if is_gemma:
            hidden = hidden + norm(attended, f"{prefix}post_attention_layernorm.weight")
            fed = _feed_forward(w, prefix, norm(hidden, f"{prefix}pre_feedforward_layernorm.weight"), _gelu_tanh)
            hidden = hidden + norm(fed, f"{prefix}post_feedforward_layernorm.weight")
        else:
            hidden = hidden + attended
            hidden = hidden + _feed_forward(w, prefix, norm(hidden, f"{prefix}post_attention_layernorm.weight"), _silu)
    output = w.get("lm_head.weight", w["model.embed_tokens.weight"])
    return norm(hidden, "model.norm.weight") @ output.T


def bert_embedding(config: Mapping[str, Any], weights: Weights, tokens: Sequence[int]) -> Array:
    """The mean over all tokens of the last layer."""
    w = {name: data.astype(np.float64) for name, data in weights.items()}
    heads = config["num_attention_heads"]

    def linear(x: Array, name: str) -> Array:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x: Array, name: str) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + config["layer_norm_eps"])
        return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    embedded = w["embeddings.word_embeddings.weight"][list(tokens)]
    embedded = embedded + w["embeddings.position_embeddings.weight"][: len(tokens)]
    hidden = norm(embedded + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    for layer in range(config["num_hidden_layers"]):
        prefix = f"encoder.layer.{layer}."
        q, k, v = (
            _heads(linear(hidden, f"{prefix}attention.self.{name}"), heads) for name in ("query", "key", "value")
        )
        scores = q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1])
        mixed = (_softmax(scores) @ v).swapaxes(0, 1).reshape(len(tokens), -1)
        hidden = norm(hidden + linear(mixed, f"{prefix}attention.output.dense"), f"{prefix}attention.output.LayerNorm")
        fed = linear(_gelu(linear(hidden, f"{prefix}intermediate.dense")), f"{prefix}output.dense")
        hidden = norm(hidden + fed, f"{prefix}output.LayerNorm")
    pooled: Array = hidden.mean(0)
    return pooled


def _attention(config: Mapping[str, Any], w: Weights, prefix: str, layer: int, x: Array, norm: Any) -> Array:
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]

    def project(name: str, count: int) -> Array:
        projected = x @ w[f"{prefix}self_attn.{name}.weight"].T
        return _heads(projected + w.get(f"{prefix}self_attn.{name}.bias", 0.0), count)

    q, k, v = project("q_proj", heads), project("k_proj", kv_heads), project("v_proj", kv_heads)
    if f"{prefix}self_attn.q_norm.weight" in w:
        q, k = norm(q, f"{prefix}self_attn.q_norm.weight"), norm(k, f"{prefix}self_attn.k_norm.weight")
    is_local = config.get("layer_types", {}) and config["layer_types"][layer] == "sliding_attention"
    frequencies = _frequencies(config, q.shape[-1], is_local=bool(is_local))
    q, k = _rotate(q, frequencies), _rotate(k, frequencies)
    k, v = (np.repeat(one, heads // kv_heads, axis=0) for one in (k, v))
    scale = config.get("query_pre_attn_scalar", q.shape[-1])
    scores = q @ k.swapaxes(-1, -2) / math.sqrt(scale)
    distance = np.arange(len(x))[:, None] - np.arange(len(x))[None, :]
    hidden = distance < 0
    if is_local:
        hidden |= distance >= config["sliding_window"]
    mixed = _softmax(np.where(hidden, -np.inf, scores)) @ v
    joined = mixed.swapaxes(0, 1).reshape(len(x), -1)
    return joined @ w[f"{prefix}self_attn.o_proj.weight"].T + w.get(f"{prefix}self_attn.o_proj.bias", 0.0)


def _frequencies(config: Mapping[str, Any], width: int, *, is_local: bool) -> Array:
    base = config["rope_local_base_freq"] if is_local else config["rope_theta"]
    frequencies = 1 / base ** (np.arange(0, width, 2) / width)
    scaling = config.get("rope_scaling") or {}
    if is_local or not scaling:
        return frequencies
    if scaling["rope_type"] == "linear":
        return frequencies / scaling["factor"]
    slowed = []
    for one in frequencies:
        turns = scaling["original_max_position_embeddings"] * one / (2 * math.pi)
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        share = min(1.0, max(0.0, (turns - low) / (high - low)))
        slowed.append(one * (share + (1 - share) / scaling["factor"]))
    return np.array(slowed)


def _rotate(x: Array, frequencies: Array) -> Array:
    angles = np.arange(x.shape[1])[:, None] * frequencies
    first, second = np.split(x, 2, axis=-1)
    sin, cos = np.sin(angles), np.cos(angles)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def _feed_forward(w: Weights, prefix: str, x: Array, activate: Any) -> Array:
    gate = activate(x @ w[f"{prefix}mlp.gate_proj.weight"].T)
    return (gate * (x @ w[f"{prefix}mlp.up_proj.weight"].T)) @ w[f"{prefix}mlp.down_proj.weight"].T


def _heads(x: Array, count: int) -> Array:
    return x.reshape(len(x), count, -1).swapaxes(0, 1)


def _softmax(x: Array) -> Array:
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def _silu(x: Array) -> Array:
    return x / (1 + np.exp(-x))


def _gelu(x: Array) -> Array:
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def _gelu_tanh(x: Array) -> Array:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
