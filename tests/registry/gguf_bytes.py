"""Writes GGUF headers piece by piece, sound ones and hostile ones."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from registry.gguf_types import TENSOR_TYPES

UINT8, UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY, UINT64 = 0, 4, 5, 6, 7, 8, 9, 10


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def u64(value: int) -> bytes:
    return struct.pack("<Q", value)


def text(content: str | bytes) -> bytes:
    raw = content.encode() if isinstance(content, str) else content
    return u64(len(raw)) + raw


def pair(key: str | bytes, kind: int, value: bytes) -> bytes:
    return text(key) + u32(kind) + value


def string_pair(key: str, value: str | bytes) -> bytes:
    return pair(key, STRING, text(value))


def number_pair(key: str, value: int) -> bytes:
    return pair(key, UINT32, u32(value))


def strings_pair(key: str, values: Sequence[str]) -> bytes:
    return pair(key, ARRAY, u32(STRING) + u64(len(values)) + b"".join(map(text, values)))


def numbers_pair(key: str, values: Sequence[int]) -> bytes:
    return pair(key, ARRAY, u32(UINT32) + u64(len(values)) + b"".join(map(u32, values)))


@dataclass
class Tensor:
    name: str
    shape: Sequence[int] = (32, 4)
    kind: int = 0
    offset: int | None = None
    """None: right after the tensor before it."""

    @property
    def size(self) -> int:
        elements = 1
        for one in self.shape:
            elements *= one
        kind = TENSOR_TYPES.get(self.kind, TENSOR_TYPES[0])
        return elements // kind.block_elements * kind.block_bytes


def default_pairs() -> list[bytes]:
    return [
        string_pair("general.architecture", "llama"),
        string_pair("general.name", "Tiny"),
        number_pair("llama.block_count", 2),
        number_pair("llama.context_length", 128),
        number_pair("llama.embedding_length", 32),
        number_pair("llama.attention.head_count", 4),
        number_pair("llama.attention.head_count_kv", 2),
        string_pair("tokenizer.chat_template", "{{ messages[0].content }}"),
    ]


@dataclass
class GgufFile:
    """The parts of a file; every one may be replaced by a lie. At most a megabyte of data is written."""

    pairs: list[bytes] = field(default_factory=default_pairs)
    tensors: list[Tensor] = field(default_factory=lambda: [Tensor("token_embd.weight"), Tensor("output.weight")])
    magic: bytes = b"GGUF"
    version: bytes = u32(3)
    tensor_count: int | None = None
    pair_count: int | None = None
    alignment: int = 32

    def header(self) -> bytes:
        parts = [
            self.magic,
            self.version,
            u64(len(self.tensors) if self.tensor_count is None else self.tensor_count),
            u64(len(self.pairs) if self.pair_count is None else self.pair_count),
            *self.pairs,
        ]
        expected = 0
        for tensor in self.tensors:
            offset = expected if tensor.offset is None else tensor.offset
            parts.append(text(tensor.name) + u32(len(tensor.shape)) + b"".join(u64(one) for one in tensor.shape))
            parts.append(u32(tensor.kind) + u64(offset))
            expected = self._aligned(offset + tensor.size)
        return b"".join(parts)

    def to_bytes(self) -> bytes:
        header = self.header()
        data = min(1 << 20, sum(self._aligned(tensor.size) for tensor in self.tensors))
        return header + bytes(self._aligned(len(header)) - len(header)) + bytes(range(256)) * (data // 256 + 1)

    def _aligned(self, position: int) -> int:
        return -(-position // self.alignment) * self.alignment


def tiny_gguf(*extra_pairs: bytes) -> bytes:
    """A sound model header with a little data; the engine would not load it."""
    return GgufFile(pairs=[*default_pairs(), *extra_pairs]).to_bytes()
