"""Writes a random-weight GGUF that llama.cpp really loads: 0.2 MB, 300 tokens, two layers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
BEGIN, END, ROLE_USER, ROLE_ASSISTANT, ROLE_SYSTEM = 256, 257, 258, 259, 260


def write_tiny_model(
    path: Path,
    *,
    seed: int = 1,
    chat_template: str | None = CHAT_TEMPLATE,
    context_length: int = 512,
    begin_token: bool = True,
    max_tensors: int = 0,
    width: int = 64,
    sections: tuple[int, ...] = (),
    added: Mapping[str, Any] | None = None,
    more_tokens: int = 0,
    renamed: Mapping[int, str] | None = None,
) -> Path:
    """A llama of two layers with a byte vocabulary. Its answers are nonsense, the same for the same seed.

    What is `added` goes on top of the weights of that name. Types that pack 256 weights into a block need a `width` of
    256. `more_tokens` follow the usual ones, and those `renamed` have other texts. With `max_tensors` it is split into
    files of at most that many tensors, numbered as shards are, beside `path`.
    """
    heads, kv_heads, hidden, layers = 4, 2, 2 * width, 2
    generator = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "qwen2vl" if sections else "llama", split_max_tensors=max_tensors)
    writer.add_name("tiny")
    writer.add_context_length(context_length)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(width // heads)
    if sections:
        writer.add_rope_dimension_sections(sections)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    size = add_byte_vocabulary(writer, begin_token=begin_token, more_tokens=more_tokens, renamed=renamed)
    if chat_template is not None:
        writer.add_chat_template(chat_template)

    def add(name: str, *shape: int, scale: float = 0.3) -> None:
        weights = generator.normal(0, scale, shape)
        writer.add_tensor(name, (weights + (added or {}).get(name, 0)).astype(np.float32))

    def add_norm(name: str) -> None:
        writer.add_tensor(name, np.ones(width, dtype=np.float32))

    add("token_embd.weight", size, width, scale=1.0)
    add_norm("output_norm.weight")
    add("output.weight", size, width)
    for layer in range(layers):
        add_norm(f"blk.{layer}.attn_norm.weight")
        add_norm(f"blk.{layer}.ffn_norm.weight")
        add(f"blk.{layer}.attn_q.weight", width, width)
        add(f"blk.{layer}.attn_k.weight", width * kv_heads // heads, width)
        add(f"blk.{layer}.attn_v.weight", width * kv_heads // heads, width)
        add(f"blk.{layer}.attn_output.weight", width, width)
        add(f"blk.{layer}.ffn_gate.weight", hidden, width)
        add(f"blk.{layer}.ffn_up.weight", hidden, width)
        add(f"blk.{layer}.ffn_down.weight", width, hidden)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_byte_vocabulary(
    writer: gguf.GGUFWriter, *, begin_token: bool, more_tokens: int = 0, renamed: Mapping[int, str] | None = None
) -> int:
    """One token for each byte, in the GPT-2 alphabet, and a few special ones; returns the size."""
    alphabet = _byte_alphabet()
    special = ["<|begin|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
    more = [f"more {number}" for number in range(more_tokens)]
    tokens = [alphabet[byte] for byte in range(256)] + special + more
    tokens = [(renamed or {}).get(number, token) for number, token in enumerate(tokens)]
    kinds = [gguf.TokenType.NORMAL] * 256 + [gguf.TokenType.CONTROL] * len(special)
    kinds += [gguf.TokenType.NORMAL] * len(more)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([f"{alphabet[104]} {alphabet[105]}"])
    writer.add_eos_token_id(END)
    if begin_token:
        writer.add_bos_token_id(BEGIN)
        writer.add_add_bos_token(True)
    return len(tokens)


def _byte_alphabet() -> dict[int, str]:
    """The printable stand-ins for bytes that byte-level BPE vocabularies use."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}
