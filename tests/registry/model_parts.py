"""GGUF files that belong together: shards, projectors, adapters."""

from __future__ import annotations

import struct

from tests.registry.gguf_bytes import FLOAT32, GgufFile, Tensor, default_pairs, number_pair, pair, string_pair


def shard(number: int, count: int, *, tensor: str | None = None, promised: int | None = None) -> bytes:
    """A part of a model; only the first says what the model is."""
    pairs = [*(default_pairs() if number == 0 else ()), number_pair("split.no", number)]
    pairs.append(number_pair("split.count", count))
    if promised is not None:
        pairs.append(number_pair("split.tensors.count", promised))
    return GgufFile(pairs=pairs, tensors=[Tensor(tensor or f"blk.{number}.weight", (32, 4))]).to_bytes()


def projector(*, what: str = "vision") -> bytes:
    pairs = [string_pair("general.architecture", "clip"), string_pair("general.type", "mmproj")]
    return GgufFile(pairs=[*pairs, number_pair(f"clip.{what}.block_count", 2)]).to_bytes()


def adapter(
    *,
    architecture: str = "llama",
    kind: str = "lora",
    shapes: tuple[tuple[int, int], tuple[int, int]] = ((32, 8), (8, 4)),
    target: str = "output.weight",
    suffixes: tuple[str, ...] = (".lora_a", ".lora_b"),
) -> bytes:
    """A LoRA for one tensor of `tiny_gguf`."""
    pairs = [
        string_pair("general.architecture", architecture),
        string_pair("general.type", "adapter"),
        string_pair("adapter.type", kind),
        pair("adapter.lora.alpha", FLOAT32, struct.pack("<f", 16)),
    ]
    tensors = [Tensor(target + suffix, shape) for suffix, shape in zip(suffixes, shapes, strict=False)]
    return GgufFile(pairs=pairs, tensors=tensors).to_bytes()
