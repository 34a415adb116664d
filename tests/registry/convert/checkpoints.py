"""Writes tiny random checkpoints of every family, as they are published."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Weights = dict[str, Array]

WIDTH, HEADS, KV_HEADS, HIDDEN, VOCABULARY = 64, 4, 2, 128, 300

LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_PATTERN = LLAMA3_PATTERN.replace("{1,3}", "")


def write_safetensors(path: Path, tensors: Mapping[str, Array], dtype: str = "F32") -> None:
    """Data in the order given, as F32, F16 or BF16."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    pieces = []
    position = 0
    for name, data in tensors.items():
        piece = stored(data, dtype)
        header[name] = {"dtype": dtype, "shape": list(data.shape), "data_offsets": [position, position + len(piece)]}
        pieces.append(piece)
        position += len(piece)
    encoded = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + b"".join(pieces))


def stored(data: Array, dtype: str) -> bytes:
    if dtype == "BF16":
        return (data.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
    return data.astype({"F32": "<f4", "F16": "<f2"}[dtype]).tobytes()


def rounded(weights: Weights, dtype: str) -> Weights:
    """The values that a checkpoint of this type really holds."""
    if dtype == "BF16":
        return {n: (w.astype("<f4").view("<u4") & 0xFFFF0000).view("<f4") for n, w in weights.items()}
    return {n: w.astype({"F32": "<f4", "F16": "<f2"}[dtype]).astype("<f4") for n, w in weights.items()}


def decoder_config(architecture: str, layers: int, **said: object) -> dict[str, Any]:
    return {
        "architectures": [architecture],
        "hidden_size": WIDTH,
        "intermediate_size": HIDDEN,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "num_hidden_layers": layers,
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "vocab_size": VOCABULARY,
        **said,
    }


def decoder_weights(
    config: Mapping[str, Any], *, biases: Sequence[str] = (), norms: Sequence[str] = (), head_norms: bool = False
) -> Weights:
    """Random weights; `norms` are those of a block, with values around 1 or, for Gemma, around 0."""
    random = np.random.default_rng(7)
    head = config.get("head_dim", WIDTH // HEADS)
    is_gemma = "Gemma" in config["architectures"][0]

    def matrix(*shape: int) -> Array:
        return random.normal(0, 0.25, shape).astype(np.float32)

    def norm(size: int) -> Array:
        return (random.normal(0, 0.1, size) + (0 if is_gemma else 1)).astype(np.float32)

    weights = {"model.embed_tokens.weight": matrix(VOCABULARY, WIDTH)}
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        shapes = {
            "self_attn.q_proj": (HEADS * head, WIDTH),
            "self_attn.k_proj": (KV_HEADS * head, WIDTH),
            "self_attn.v_proj": (KV_HEADS * head, WIDTH),
            "self_attn.o_proj": (WIDTH, HEADS * head),
            "mlp.gate_proj": (HIDDEN, WIDTH),
            "mlp.up_proj": (HIDDEN, WIDTH),
            "mlp.down_proj": (WIDTH, HIDDEN),
        }
        for name, shape in shapes.items():
            weights[f"{prefix}{name}.weight"] = matrix(*shape)
            if name in biases:
                weights[f"{prefix}{name}.bias"] = matrix(shape[0])
        for name in ("input_layernorm", "post_attention_layernorm", *norms):
            weights[f"{prefix}{name}.weight"] = norm(WIDTH)
        if head_norms:
            weights[f"{prefix}self_attn.q_norm.weight"] = norm(head)
            weights[f"{prefix}self_attn.k_norm.weight"] = norm(head)
    weights["model.norm.weight"] = norm(WIDTH)
    if not config.get("tie_word_embeddings"):
        weights["lm_head.weight"] = matrix(VOCABULARY, WIDTH)
    return weights


def bert_weights(config: Mapping[str, Any]) -> Weights:
    random = np.random.default_rng(7)

    def matrix(*shape: int) -> Array:
        return random.normal(0, 0.25, shape).astype(np.float32)

    weights = {
        "embeddings.word_embeddings.weight": matrix(config["vocab_size"], WIDTH),
        "embeddings.position_embeddings.weight": matrix(config["max_position_embeddings"], WIDTH),
        "embeddings.token_type_embeddings.weight": matrix(2, WIDTH),
        "embeddings.LayerNorm.weight": 1 + matrix(WIDTH),
        "embeddings.LayerNorm.bias": matrix(WIDTH),
        "pooler.dense.weight": matrix(WIDTH, WIDTH),
        "pooler.dense.bias": matrix(WIDTH),
    }
    for layer in range(config["num_hidden_layers"]):
        prefix = f"encoder.layer.{layer}."
        for name in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            weights[f"{prefix}{name}.weight"] = matrix(WIDTH, WIDTH)
            weights[f"{prefix}{name}.bias"] = matrix(WIDTH)
        weights[f"{prefix}intermediate.dense.weight"] = matrix(HIDDEN, WIDTH)
        weights[f"{prefix}intermediate.dense.bias"] = matrix(HIDDEN)
        weights[f"{prefix}output.dense.weight"] = matrix(WIDTH, HIDDEN)
        weights[f"{prefix}output.dense.bias"] = matrix(WIDTH)
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            weights[f"{prefix}{name}.weight"] = 1 + matrix(WIDTH)
            weights[f"{prefix}{name}.bias"] = matrix(WIDTH)
    return weights


def byte_alphabet() -> list[str]:
    """The stand-ins for the 256 bytes in byte-level vocabularies."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def byte_level_tokenizer(pattern: str | None, *, begins: bool = False) -> dict[str, Any]:
    """256 bytes, three merges (`he`, `ll`, `hell`) and two special tokens."""
    alphabet = byte_alphabet()
    vocabulary = {text: number for number, text in enumerate([*alphabet, "he", "ll", "hell"])}
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": pattern is None}
    steps = [split, byte_level] if pattern else [byte_level]
    return {
        "added_tokens": [
            {"id": 259, "content": "<|begin|>", "special": True},
            {"id": 260, "content": "<|end|>", "special": True},
            {"id": 261, "content": "<tool>", "special": False},
        ],
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<|begin|>"}}, {"Sequence": {"id": "A"}}]
            if begins
            else [{"Sequence": {"id": "A"}}],
        },
        "model": {"type": "BPE", "vocab": vocabulary, "merges": ["h e", ["l", "l"], "he ll"]},
    }


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def message(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def sentencepiece_model(pieces: Sequence[tuple[str, float, int]], *, model_type: int = 2, prefix: bool = True) -> bytes:
    """A tokenizer.model: piece, score and kind of each."""
    parts = [
        message(1, message(1, text.encode()) + b"\x15" + struct.pack("<f", score) + b"\x18" + varint(kind))
        for text, score, kind in pieces
    ]
    parts.append(message(2, b"\x18" + varint(model_type)))
    parts.append(message(3, b"\x18" + varint(int(prefix))))
    return b"".join(parts)


def tiny_pieces() -> list[tuple[str, float, int]]:
    """Special pieces, 256 bytes, letters, and three longer ones."""
    special = [("<pad>", 0.0, 3), ("<eos>", 0.0, 3), ("<bos>", 0.0, 3), ("<unk>", 0.0, 2)]
    bytes_ = [(f"<0x{byte:02X}>", 0.0, 6) for byte in range(256)]
    letters = [(letter, -100.0 - number, 1) for number, letter in enumerate("▁helo")]
    return [*special, *bytes_, *letters, ("he", -1.0, 1), ("ll", -2.0, 1), ("hell", -3.0, 1)]


def write_checkpoint(
    folder: Path,
    config: Mapping[str, Any],
    weights: Weights,
    *,
    dtype: str = "F32",
    files: Mapping[str, object] | None = None,
    shards: int = 1,
) -> Path:
    """A folder as it is published; `files` are JSON unless they are bytes or texts."""
    folder.mkdir(parents=True, exist_ok=True)
    names = list(weights)
    if shards == 1:
        write_safetensors(folder / "model.safetensors", weights, dtype)
    else:
        parts = [names[number::shards] for number in range(shards)]
        index = {}
        for number, part in enumerate(parts, start=1):
            name = f"model-{number:05}-of-{shards:05}.safetensors"
            write_safetensors(folder / name, {one: weights[one] for one in part}, dtype)
            index.update(dict.fromkeys(part, name))
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    for name, content in {"config.json": config, **(files or {})}.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return folder
