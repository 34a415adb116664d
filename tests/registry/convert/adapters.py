"""Writes LoRA adapters as PEFT publishes them, and says what they add to the weights."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tests.registry.convert.checkpoints import Array, Weights, write_safetensors

RANK, ALPHA = 4, 6.0


def write_adapter(
    folder: Path, weights: Weights, names: Mapping[str, int] | list[str], **said: object
) -> dict[str, Array]:
    """Changes the named weights (with their ranks, where those differ); returns what is added to each."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(11)
    ranks = names if isinstance(names, Mapping) else dict.fromkeys(names, RANK)
    alphas: Mapping[str, float] = said.get("alpha_pattern", {})  # type: ignore[assignment]
    tensors: Weights = {}
    added = {}
    for name, rank in ranks.items():
        module = name.removesuffix(".weight")
        rows, columns = weights[name].shape
        alpha = next((one for key, one in alphas.items() if module.endswith(key)), ALPHA)
        scale = alpha / (math.sqrt(rank) if said.get("use_rslora") else rank)
        is_embedding = "embed_tokens" in module
        # An embedding's factors stand the other way round: what is added is (B A) transposed.
        a = random.normal(0, 0.2, (rank, rows if is_embedding else columns)).astype(np.float32)
        b = random.normal(0, 0.2, (columns if is_embedding else rows, rank)).astype(np.float32)
        halves = ("lora_embedding_A", "lora_embedding_B") if is_embedding else ("lora_A.weight", "lora_B.weight")
        for half, data in zip(halves, (a, b), strict=True):
            tensors[f"base_model.model.{module}.{half}"] = data
        product = scale * (b.astype(np.float64) @ a.astype(np.float64))
        added[name] = (product.T if is_embedding else product).astype(np.float32)
    write_safetensors(folder / "adapter_model.safetensors", tensors)
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "bias": "none", **said}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return added
