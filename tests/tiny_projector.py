"""Writes random-weight projectors that mtmd really loads, for the tiny model: one for images, one for sounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np

IMAGE_SIDE, PATCH_SIDE = 32, 8
IMAGE_TOKENS = (IMAGE_SIDE // PATCH_SIDE) ** 2
"""Of one image by the plain projector; the one with pooling makes a quarter of them."""
MEL_BINS, SOUND_FRAMES = 80, 3000
"""Sounds come in windows of 30 seconds, whatever their length."""
STACKED_FRAMES = 60
SOUND_TOKENS = SOUND_FRAMES // 2 // STACKED_FRAMES
INNER, HIDDEN, LAYERS, HEADS = 16, 24, 2, 2


def write_vision_projector(path: Path, *, seed: int = 1, width: int = 64, reads_whole: bool = False) -> Path:
    """Patches, two layers, and a projection to vectors of `width`.

    With `reads_whole` it is of the kind whose images the model reads with attention in both directions.
    """
    writer = _Writer(path, seed)
    writer.out.add_bool("clip.has_vision_encoder", True)
    writer.out.add_string("clip.projector_type", "gemma3" if reads_whole else "mlp")
    writer.out.add_bool("clip.use_gelu", True)
    writer.sizes("vision", width)
    writer.out.add_uint32("clip.vision.image_size", IMAGE_SIDE)
    writer.out.add_uint32("clip.vision.patch_size", PATCH_SIDE)
    writer.out.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    writer.out.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])
    writer.add("v.patch_embd.weight", INNER, 3, PATCH_SIDE, PATCH_SIDE)
    writer.add("v.position_embd.weight", IMAGE_TOKENS, INNER)
    writer.layers("v")
    if reads_whole:
        writer.out.add_uint32("clip.vision.projector.scale_factor", 2)
        writer.norm("v.post_ln")
        writer.add("mm.input_projection.weight", INNER, width)
        writer.ones("mm.soft_emb_norm.weight", INNER)
    else:
        writer.linear("mm.0", width, INNER)
        writer.linear("mm.2", width, width)
    return writer.close()


def write_grid_projector(path: Path, *, seed: int = 1, width: int = 64) -> Path:
    """As Qwen2-VL's: an image keeps its shape, four patches become one vector, and where that was is not in it."""
    writer = _Writer(path, seed)
    writer.out.add_bool("clip.has_vision_encoder", True)
    writer.out.add_string("clip.projector_type", "qwen2vl_merger")
    writer.out.add_bool("clip.use_silu", True)
    writer.sizes("vision", width)
    writer.out.add_uint32("clip.vision.image_size", IMAGE_SIDE)
    writer.out.add_uint32("clip.vision.patch_size", PATCH_SIDE)
    writer.out.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    writer.out.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])
    for name in ("v.patch_embd.weight", "v.patch_embd.weight.1"):
        writer.add(name, INNER, 3, PATCH_SIDE, PATCH_SIDE)
    writer.layers("v")
    writer.norm("v.post_ln")
    writer.linear("mm.0", 4 * INNER, 4 * INNER)
    writer.linear("mm.2", width, 4 * INNER)
    return writer.close()


def write_sound_projector(path: Path, *, seed: int = 1, width: int = 64) -> Path:
    """Two convolutions over the spectrum, two layers, and a projection of stacked frames to vectors of `width`."""
    writer = _Writer(path, seed)
    writer.out.add_bool("clip.has_audio_encoder", True)
    writer.out.add_string("clip.projector_type", "ultravox")
    writer.sizes("audio", width)
    writer.out.add_uint32("clip.audio.num_mel_bins", MEL_BINS)
    writer.out.add_uint32("clip.audio.projector.stack_factor", STACKED_FRAMES)
    writer.add("a.position_embd.weight", SOUND_FRAMES // 2, INNER)
    for number, channels in ((1, MEL_BINS), (2, INNER)):
        writer.add(f"a.conv1d.{number}.weight", INNER, channels, 3, kind=np.float16)
        writer.add(f"a.conv1d.{number}.bias", INNER, 1)
    writer.layers("a", key_bias=False)
    writer.norm("a.post_ln")
    writer.ones("mm.a.norm_pre.weight", INNER * STACKED_FRAMES)
    writer.add("mm.a.mlp.1.weight", 2 * width, INNER * STACKED_FRAMES)
    writer.ones("mm.a.norm_mid.weight", width)
    writer.add("mm.a.mlp.2.weight", width, width)
    return writer.close()


class _Writer:
    """Random tensors under the names that mtmd looks for."""

    def __init__(self, path: Path, seed: int) -> None:
        self.out = gguf.GGUFWriter(path, "clip")
        self._path = path
        self._generator = np.random.default_rng(seed)

    def sizes(self, what: str, width: int) -> None:
        self.out.add_uint32(f"clip.{what}.embedding_length", INNER)
        self.out.add_uint32(f"clip.{what}.attention.head_count", HEADS)
        self.out.add_uint32(f"clip.{what}.feed_forward_length", HIDDEN)
        self.out.add_uint32(f"clip.{what}.block_count", LAYERS)
        self.out.add_uint32(f"clip.{what}.projection_dim", width)
        self.out.add_float32(f"clip.{what}.attention.layer_norm_epsilon", 1e-5)

    def layers(self, prefix: str, *, key_bias: bool = True) -> None:
        for layer in range(LAYERS):
            block = f"{prefix}.blk.{layer}"
            self.norm(f"{block}.ln1")
            self.norm(f"{block}.ln2")
            for name in ("attn_q", "attn_v", "attn_out"):
                self.linear(f"{block}.{name}", INNER, INNER)
            self.linear(f"{block}.attn_k", INNER, INNER, bias=key_bias)
            self.linear(f"{block}.ffn_up", HIDDEN, INNER)
            self.linear(f"{block}.ffn_down", INNER, HIDDEN)

    def norm(self, name: str) -> None:
        self.ones(f"{name}.weight", INNER)
        self.add(f"{name}.bias", INNER)

    def linear(self, name: str, rows: int, columns: int, *, bias: bool = True) -> None:
        self.add(f"{name}.weight", rows, columns)
        if bias:
            self.add(f"{name}.bias", rows)

    def ones(self, name: str, *shape: int) -> None:
        self.out.add_tensor(name, np.ones(shape, dtype=np.float32))

    def add(self, name: str, *shape: int, kind: Any = np.float32) -> None:
        self.out.add_tensor(name, self._generator.normal(0, 0.5, shape).astype(kind))

    def close(self) -> Path:
        self.out.write_header_to_file()
        self.out.write_kv_data_to_file()
        self.out.write_tensors_to_file()
        self.out.close()
        return self._path
