"""What a GGUF file says about its model, read by a bounded reader that trusts no count in the file."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from registry.errors import ModelInvalid
from registry.gguf_header import MetadataValue, TensorInfo, read_header, split_of
from registry.gguf_soundness import check_sound
from registry.gguf_types import FILE_TYPE_GUESSED, FILE_TYPES

MAX_BLOCKS = 512
_MAX_WIDTH = 1 << 24
_MAX_HEADS = 1 << 16
_MAX_CONTEXT = 1 << 31
_ARCHITECTURE = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_F16_BYTES = 2


@dataclass(frozen=True)
class GgufMetadata:
    """The header of a model file; every figure here has been checked."""

    version: int
    architecture: str
    """Empty for a shard that is not its model's first: only that one says what the model is."""
    values: Mapping[str, MetadataValue]
    """By key; None stands for an array too long to keep, whose length is in `array_lengths`."""
    array_lengths: Mapping[str, int]
    """The number of entries of every array, kept or not."""
    tensors: tuple[TensorInfo, ...]
    parameter_count: int
    file_type_name: str
    block_count: int
    """0 where the file does not say, as in a projector."""
    context_length: int
    """Of the training; 0 where the file does not say."""
    embedding_length: int
    chat_template: str | None
    weights_size: int
    """Bytes of all tensors."""
    head_count_kv: tuple[int, ...]
    """Key and value heads of each block."""
    key_length: int
    value_length: int

    @property
    def shard(self) -> tuple[int, int] | None:
        """Number, from 0, and count of a file that is a part of a model; None for one that stands alone."""
        return split_of(self.values)

    @property
    def parameter_size(self) -> str:
        """The parameter count, as people read it: 1.2B, 135M."""
        return human_count(self.parameter_count)

    def kv_bytes_per_token(self) -> int:
        """Bytes of f16 KV cache that one token takes over all blocks; an upper bound for sliding windows."""
        return sum(self.head_count_kv) * (self.key_length + self.value_length) * _F16_BYTES


def read_gguf(path: Path) -> GgufMetadata:
    """Read and check a model file's header; blocks for some milliseconds.

    Raises ModelInvalid, with a sentence on what is wrong and where, for any file that is not a
    sound GGUF model. Memory stays in proportion to what is kept, whatever the file claims.
    """
    header = read_header(path)
    architecture = header.values.get("general.architecture", "")
    is_named = isinstance(architecture, str) and _ARCHITECTURE.fullmatch(architecture)
    if not isinstance(architecture, str) or not (is_named or (not architecture and _is_later_shard(header.values))):
        raise ModelInvalid("general.architecture is missing or is not the name of an architecture.")
    figures = _Figures(architecture, header.values)
    blocks = figures.count("block_count", MAX_BLOCKS)
    check_sound(architecture, blocks, header)
    width = figures.count("embedding_length", _MAX_WIDTH)
    heads = figures.per_block("attention.head_count", blocks)
    most_heads = max(heads, default=0)
    head_width = width // most_heads if most_heads else 0
    template = header.values.get("tokenizer.chat_template")
    if template is not None and not isinstance(template, str):
        raise ModelInvalid("tokenizer.chat_template is not a string.")
    return GgufMetadata(
        version=header.version,
        architecture=architecture,
        values=MappingProxyType(header.values),
        array_lengths=MappingProxyType(header.array_lengths),
        tensors=header.tensors,
        parameter_count=sum(tensor.elements for tensor in header.tensors),
        file_type_name=_file_type_name(header.values, header.tensors),
        block_count=blocks,
        context_length=figures.count("context_length", _MAX_CONTEXT),
        embedding_length=width,
        chat_template=template,
        weights_size=sum(tensor.size for tensor in header.tensors),
        head_count_kv=figures.per_block("attention.head_count_kv", blocks, heads),
        key_length=figures.count("attention.key_length", _MAX_WIDTH, head_width),
        value_length=figures.count("attention.value_length", _MAX_WIDTH, head_width),
    )


def _is_later_shard(values: Mapping[str, MetadataValue]) -> bool:
    number, count = split_of(values) or (0, 0)
    return 0 < number < count


def human_count(count: int) -> str:
    if count >= 1_000_000_000:
        return f"{count / 1e9:.1f}".removesuffix(".0") + "B"
    if count >= 1_000_000:
        return f"{count / 1e6:.0f}M"
    if count >= 1_000:
        return f"{count / 1e3:.0f}K"
    return str(count)


class _Figures:
    """The numbers under one architecture's prefix, each checked when it is asked for."""

    def __init__(self, architecture: str, values: Mapping[str, MetadataValue]) -> None:
        self._prefix = architecture
        self._values = values

    def count(self, name: str, maximum: int, default: int = 0) -> int:
        key = f"{self._prefix}.{name}"
        value = self._values.get(key, default)
        if key in self._values:
            _check_count(key, value, maximum)
        return value if isinstance(value, int) else default

    def per_block(self, name: str, blocks: int, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """One number for each block; a single number holds for all of them."""
        key = f"{self._prefix}.{name}"
        if key not in self._values:
            return default or (0,) * blocks
        value = self._values[key]
        if not isinstance(value, list):
            return (self.count(name, _MAX_HEADS),) * blocks
        if len(value) < blocks:
            raise ModelInvalid(f"{key} has {len(value)} entries for {blocks} blocks.")
        return tuple(_check_count(key, one, _MAX_HEADS) for one in value[:blocks])


def _check_count(key: str, value: object, maximum: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ModelInvalid(f"{key} is not an integer.")
    if not 0 <= value <= maximum:
        raise ModelInvalid(f"{key} is {value}; at most {maximum} makes sense.")
    return value


def _file_type_name(values: Mapping[str, MetadataValue], tensors: tuple[TensorInfo, ...]) -> str:
    file_type = values.get("general.file_type")
    if isinstance(file_type, int) and file_type >= 0:
        name = FILE_TYPES.get(file_type & ~FILE_TYPE_GUESSED)
        if name is not None:
            return name
    elements: Counter[str] = Counter()
    for tensor in tensors:
        elements[tensor.type_name] += tensor.elements
    return max(elements, key=lambda name: elements[name], default="")
