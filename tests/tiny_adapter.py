"""Writes a LoRA adapter for the tiny model, and says what it adds to the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np

RANK = 4
_SHAPES = {"attn_q": (64, 64), "attn_v": (32, 64), "ffn_down": (64, 128)}


def write_tiny_adapter(path: Path, *, seed: int, alpha: float = 8.0) -> dict[str, Any]:
    """Changes three matrices of each layer; returns what is added to each at scale 1."""
    generator = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    added = {}
    for layer in range(2):
        for name, (outputs, inputs) in _SHAPES.items():
            weight = f"blk.{layer}.{name}.weight"
            a = generator.normal(0, 0.2, (RANK, inputs)).astype(np.float32)
            b = generator.normal(0, 0.2, (outputs, RANK)).astype(np.float32)
            writer.add_tensor(f"{weight}.lora_a", a)
            writer.add_tensor(f"{weight}.lora_b", b)
            added[weight] = alpha / RANK * (b.astype(np.float64) @ a.astype(np.float64))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return added
