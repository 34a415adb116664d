"""Writes a random-weight LFM2: one block of it remembers a short convolution, the other attends to cells."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

from tests.tiny_model import CHAT_TEMPLATE, add_byte_vocabulary


def write_tiny_hybrid_model(path: Path, *, seed: int = 1, context_length: int = 512) -> Path:
    """Two blocks over the byte vocabulary. Its answers are nonsense, the same for the same seed."""
    width, heads, hidden, kernel = 64, 2, 96, 3
    generator = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "lfm2")
    writer.add_name("tiny lfm2")
    writer.add_context_length(context_length)
    writer.add_embedding_length(width)
    writer.add_block_count(2)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(heads)
    writer.add_head_count_kv([0, heads])
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_shortconv_l_cache(kernel)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    size = add_byte_vocabulary(writer, begin_token=True)
    writer.add_chat_template(CHAT_TEMPLATE)

    def add(name: str, *shape: int, scale: float = 0.3) -> None:
        writer.add_tensor(name, generator.normal(0, scale, shape).astype(np.float32))

    def add_ones(name: str, count: int) -> None:
        writer.add_tensor(name, np.ones(count, dtype=np.float32))

    add("token_embd.weight", size, width, scale=1.0)
    add_ones("token_embd_norm.weight", width)
    for layer in range(2):
        block = f"blk.{layer}"
        add_ones(f"{block}.attn_norm.weight", width)
        add_ones(f"{block}.ffn_norm.weight", width)
        add(f"{block}.ffn_gate.weight", hidden, width)
        add(f"{block}.ffn_up.weight", hidden, width)
        add(f"{block}.ffn_down.weight", width, hidden)
    add("blk.0.shortconv.conv.weight", width, kernel)
    add("blk.0.shortconv.in_proj.weight", 3 * width, width)
    add("blk.0.shortconv.out_proj.weight", width, width)
    for name in ("q", "k", "v", "output"):
        add(f"blk.1.attn_{name}.weight", width, width)
    for name in ("q", "k"):
        add_ones(f"blk.1.attn_{name}_norm.weight", width // heads)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
