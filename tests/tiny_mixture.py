"""Writes a random-weight GGUF of a mixture of experts that llama.cpp really loads."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

from tests.tiny_model import add_byte_vocabulary

EXPERTS, USED = 4, 2


def write_tiny_mixture(path: Path, *, seed: int = 1, width: int = 64) -> Path:
    """A qwen3moe of one layer with a byte vocabulary."""
    heads, kv_heads, hidden = 4, 2, 32
    generator = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "qwen3moe")
    writer.add_context_length(1024)
    writer.add_embedding_length(width)
    writer.add_block_count(1)
    writer.add_feed_forward_length(hidden)
    writer.add_expert_feed_forward_length(hidden)
    writer.add_expert_count(EXPERTS)
    writer.add_expert_used_count(USED)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(width // heads)
    writer.add_value_length(width // heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(width // heads)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    size = add_byte_vocabulary(writer, begin_token=True)

    def add(name: str, *shape: int) -> None:
        writer.add_tensor(name, generator.normal(0, 0.3, shape).astype(np.float32))

    def add_norm(name: str, length: int) -> None:
        writer.add_tensor(name, np.ones(length, dtype=np.float32))

    add("token_embd.weight", size, width)
    add_norm("output_norm.weight", width)
    add("output.weight", size, width)
    add_norm("blk.0.attn_norm.weight", width)
    add_norm("blk.0.ffn_norm.weight", width)
    add_norm("blk.0.attn_q_norm.weight", width // heads)
    add_norm("blk.0.attn_k_norm.weight", width // heads)
    add("blk.0.attn_q.weight", width, width)
    add("blk.0.attn_k.weight", width * kv_heads // heads, width)
    add("blk.0.attn_v.weight", width * kv_heads // heads, width)
    add("blk.0.attn_output.weight", width, width)
    add("blk.0.ffn_gate_inp.weight", EXPERTS, width)
    add("blk.0.ffn_gate_exps.weight", EXPERTS, hidden, width)
    add("blk.0.ffn_up_exps.weight", EXPERTS, hidden, width)
    add("blk.0.ffn_down_exps.weight", EXPERTS, width, hidden)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
