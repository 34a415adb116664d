"""Writes a random-weight Mamba: a model whose memory is one state for each sequence, not cells that can be cut."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

from tests.tiny_model import CHAT_TEMPLATE, add_byte_vocabulary


def write_tiny_recurrent_model(path: Path, *, seed: int = 1, context_length: int = 512) -> Path:
    """Two Mamba blocks over the byte vocabulary. Its answers are nonsense, the same for the same seed."""
    width, inner, state, kernel, rank, layers = 64, 128, 16, 4, 4, 2
    generator = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "mamba")
    writer.add_name("tiny mamba")
    writer.add_context_length(context_length)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(0)
    writer.add_head_count(0)
    writer.add_ssm_conv_kernel(kernel)
    writer.add_ssm_inner_size(inner)
    writer.add_ssm_state_size(state)
    writer.add_ssm_time_step_rank(rank)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    size = add_byte_vocabulary(writer, begin_token=True)
    writer.add_chat_template(CHAT_TEMPLATE)

    def add(name: str, *shape: int, scale: float = 0.3) -> None:
        writer.add_tensor(name, generator.normal(0, scale, shape).astype(np.float32))

    def add_ones(name: str, count: int) -> None:
        writer.add_tensor(name, np.ones(count, dtype=np.float32))

    add("token_embd.weight", size, width, scale=1.0)
    add_ones("output_norm.weight", width)
    add("output.weight", size, width)
    for layer in range(layers):
        block = f"blk.{layer}"
        add_ones(f"{block}.attn_norm.weight", width)
        add(f"{block}.ssm_in.weight", 2 * inner, width)
        add(f"{block}.ssm_conv1d.weight", inner, kernel)
        add(f"{block}.ssm_conv1d.bias", inner)
        add(f"{block}.ssm_x.weight", rank + 2 * state, inner)
        add(f"{block}.ssm_dt.weight", inner, rank)
        add(f"{block}.ssm_dt.bias", inner)
        # Negative, so that the state fades and does not grow without bound.
        writer.add_tensor(f"{block}.ssm_a", -np.abs(generator.normal(1, 0.3, (inner, state))).astype(np.float32))
        add_ones(f"{block}.ssm_d", inner)
        add(f"{block}.ssm_out.weight", width, inner)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
