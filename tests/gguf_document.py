"""A GGUF file taken apart, so that tests can change one thing in it and put it together again."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field, replace

from registry.gguf_types import ARRAY, SCALARS, STRING, TENSOR_TYPES

ALIGNMENT = 32


@dataclass(frozen=True)
class Pair:
    key: bytes
    kind: int
    value: bytes
    """As it stands in the file."""

    def to_bytes(self) -> bytes:
        return _text(self.key) + struct.pack("<I", self.kind) + self.value


@dataclass(frozen=True)
class TensorEntry:
    name: bytes
    shape: tuple[int, ...]
    kind: int
    data: bytes

    @property
    def natural_size(self) -> int:
        """Bytes that a tensor of this shape and type has; the data may be something else."""
        kind = TENSOR_TYPES.get(self.kind)
        return math.prod(self.shape) // kind.block_elements * kind.block_bytes if kind else len(self.data)


@dataclass(frozen=True)
class Document:
    """Every part of a file; `to_bytes` computes counts, offsets and padding anew."""

    pairs: tuple[Pair, ...]
    tensors: tuple[TensorEntry, ...]
    version: int = 3
    ends: tuple[int, ...] = field(default=(), compare=False)
    """Where, in the file that was read, each part ended."""

    @classmethod
    def read(cls, content: bytes) -> Document:
        """Of a sound file only."""
        at = _Reader(content, 4)
        version, tensor_count, pair_count = at.u32(), at.u64(), at.u64()
        ends = [4, 8, 16, 24]
        pairs = []
        for _ in range(pair_count):
            key, kind, start = at.text(), at.u32(), at.position
            at.skip_value(kind)
            pairs.append(Pair(key, kind, content[start : at.position]))
            ends.append(at.position)
        entries = []
        for _ in range(tensor_count):
            name = at.text()
            shape = tuple(at.u64() for _ in range(at.u32()))
            entries.append((name, shape, at.u32(), at.u64()))
            ends.append(at.position)
        start = _aligned(at.position)
        tensors = []
        for name, shape, kind, offset in entries:
            entry = TensorEntry(name, shape, kind, b"")
            begin = start + offset
            ends += [begin, begin + entry.natural_size]
            tensors.append(replace(entry, data=content[begin : begin + entry.natural_size]))
        return cls(tuple(pairs), tuple(tensors), version, tuple(ends))

    def to_bytes(self) -> bytes:
        head = [b"GGUF", struct.pack("<IQQ", self.version, len(self.tensors), len(self.pairs))]
        head += [pair.to_bytes() for pair in self.pairs]
        data = b""
        for tensor in self.tensors:
            head.append(_text(tensor.name) + struct.pack("<I", len(tensor.shape)))
            head += [struct.pack("<Q", one & (2**64 - 1)) for one in tensor.shape]
            head.append(struct.pack("<IQ", tensor.kind & (2**32 - 1), len(data)))
            content = tensor.data.ljust(min(tensor.natural_size, 1 << 22), b"\0")[: tensor.natural_size]
            data += content.ljust(_aligned(len(content)), b"\0")
        header = b"".join(head)
        return header.ljust(_aligned(len(header)), b"\0") + data

    def with_pair(self, key: str, kind: int, value: bytes) -> Document:
        """With one pair set, where it was or at the end."""
        new = Pair(key.encode(), kind, value)
        if all(pair.key != new.key for pair in self.pairs):
            return replace(self, pairs=(*self.pairs, new))
        return replace(self, pairs=tuple(new if pair.key == new.key else pair for pair in self.pairs))

    def without_pair(self, key: str) -> Document:
        return replace(self, pairs=tuple(pair for pair in self.pairs if pair.key != key.encode()))

    def with_tensor(self, index: int, tensor: TensorEntry) -> Document:
        return replace(self, tensors=(*self.tensors[:index], tensor, *self.tensors[index + 1 :]))


class _Reader:
    def __init__(self, content: bytes, position: int) -> None:
        self._content = content
        self.position = position

    def u32(self) -> int:
        return int(self._number("<I"))

    def u64(self) -> int:
        return int(self._number("<Q"))

    def text(self) -> bytes:
        length = self.u64()
        self.position += length
        return self._content[self.position - length : self.position]

    def skip_value(self, kind: int) -> None:
        if kind == STRING:
            self.text()
        elif kind == ARRAY:
            inner, count = self.u32(), self.u64()
            for _ in range(count):
                self.skip_value(inner)
        else:
            self.position += SCALARS[kind].size

    def _number(self, form: str) -> int:
        size = struct.calcsize(form)
        self.position += size
        value: int = struct.unpack(form, self._content[self.position - size : self.position])[0]
        return value


def _text(content: bytes) -> bytes:
    return struct.pack("<Q", len(content)) + content


def _aligned(position: int) -> int:
    return -(-position // ALIGNMENT) * ALIGNMENT
