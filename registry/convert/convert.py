"""Turns a checkpoint into one GGUF file, holding one tensor in memory at a time."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

from registry.convert.checkpoint import Array, Checkpoint, StoredTensor
from registry.convert.families import bert, gemma3, llama, qwen
from registry.convert.family import Family, Target
from registry.convert.pooling import describe_pooling
from registry.convert.vocabulary import read_vocabulary
from registry.errors import DiskFull, ModelInvalid, Unsupported

FAMILIES: tuple[Family, ...] = (llama.FAMILY, qwen.QWEN2, qwen.QWEN3, gemma3.FAMILY, bert.FAMILY)

_BLOCK = re.compile(r"blk\.(\d+)\.(.+)")
_FILE_TYPES = {
    "F32": gguf.LlamaFileType.ALL_F32,
    "F16": gguf.LlamaFileType.MOSTLY_F16,
    "BF16": gguf.LlamaFileType.MOSTLY_BF16,
}
_TENSOR_TYPES = {
    "F32": gguf.GGMLQuantizationType.F32,
    "F16": gguf.GGMLQuantizationType.F16,
    "BF16": gguf.GGMLQuantizationType.BF16,
}
_BYTES = {"F32": 4, "F16": 2, "BF16": 2}


@dataclass(frozen=True, slots=True)
class _Planned:
    """One tensor of the file to be written."""

    source: StoredTensor
    target: Target
    dtype: str

    @property
    def size(self) -> int:
        return int(np.prod(self.source.shape, dtype=np.int64)) * _BYTES[self.dtype]


def convert(
    folder: Path,
    output: Path,
    *,
    dtype: str | None = None,
    room: int | None = None,
    on_progress: Callable[[float], None] = lambda _: None,
) -> None:
    """Write the checkpoint in `folder` to `output`; blocks. The same checkpoint always gives the same bytes.

    Matrices keep their type unless `dtype` is F32, F16 or BF16; vectors become F32. `room` is the most
    bytes that may be written. Raises Unsupported, ModelInvalid or DiskFull; what was written is left.
    """
    checkpoint = Checkpoint(folder)
    family = _family_of(checkpoint)
    planned = _plan(checkpoint, family, dtype)
    additions = family.additions(checkpoint.config)
    total = sum(one.size for one in planned)
    check_room("model", total, room)
    writer = gguf.GGUFWriter(output, family.architecture)
    try:
        _describe(checkpoint, family, planned, writer)
        _declare(planned, additions, writer)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for data in additions.values():
            writer.write_tensor_data(data)
        done = 0
        for one in planned:
            writer.write_tensor_data(_data(one))
            done += one.size
            on_progress(done / total)
    finally:
        writer.close()


def _family_of(checkpoint: Checkpoint) -> Family:
    named = checkpoint.config.texts("architectures")
    for family in FAMILIES:
        if any(name in family.classes for name in named):
            return family
    known = ", ".join(name for family in FAMILIES for name in family.classes)
    raise Unsupported(
        f"Models of the architecture {', '.join(named)[:100] or 'nobody named'} are not converted; {known} are."
    )


def _plan(checkpoint: Checkpoint, family: Family, dtype: str | None) -> list[_Planned]:
    """Every tensor in the order of the file. Raises ModelInvalid when some are missing."""
    planned = []
    for tensor in checkpoint.tensors.values():
        target = family.place(tensor.name, checkpoint.config)
        if target is None:
            continue
        if tensor.dtype == "I64":
            raise Unsupported(f"The tensor {tensor.name[:80]!a} holds whole numbers.")
        is_full = target.is_full or len(tensor.shape) < 2
        planned.append(_Planned(tensor, target, "F32" if is_full else dtype or tensor.dtype))
    planned.sort(key=lambda one: _position(one.target.name))
    embeddings = next((one for one in planned if one.target.name == "token_embd.weight"), None)
    if embeddings is None:
        raise ModelInvalid("The checkpoint has no token embeddings.")
    size = checkpoint.config.count("vocab_size")
    if embeddings.source.shape[:1] != (size,):
        raise ModelInvalid(f"config.json says {size} tokens; the embeddings are {embeddings.source.shape}.")
    _check_complete([one.target.name for one in planned], checkpoint.config.count("num_hidden_layers"))
    return planned


def _position(name: str) -> tuple[int, str]:
    match = _BLOCK.fullmatch(name)
    return (int(match[1]) + 1, name) if match else (0, name)


def _check_complete(names: list[str], blocks: int) -> None:
    parts: defaultdict[int, set[str]] = defaultdict(set)
    for name in names:
        match = _BLOCK.fullmatch(name)
        if match:
            parts[int(match[1])].add(match[2])
    if len(set(names)) != len(names):
        raise ModelInvalid("The checkpoint has a tensor twice, under two names.")
    for number in range(blocks):
        if not parts[number] or parts[number] != parts[0]:
            missing = sorted(parts[0] - parts[number])
            raise ModelInvalid(
                f"Block {number} of the checkpoint is not complete: {', '.join(missing) or 'it differs'}."
            )
    if len(parts) > blocks:
        raise ModelInvalid(f"The checkpoint has {len(parts)} blocks, and config.json says {blocks}.")


def _describe(checkpoint: Checkpoint, family: Family, planned: list[_Planned], writer: gguf.GGUFWriter) -> None:
    writer.add_type("model")
    name = checkpoint.config.text("_name_or_path").rstrip("/").rpartition("/")[2]
    if name:
        writer.add_name(name[:200])
    family.describe(checkpoint.config, writer)
    if family.is_pooled:
        describe_pooling(checkpoint, writer)
    sizes: defaultdict[str, int] = defaultdict(int)
    for one in planned:
        sizes[one.dtype] += one.size
    writer.add_file_type(_FILE_TYPES[max(sizes, key=lambda dtype: sizes[dtype])])
    read_vocabulary(checkpoint).write(writer)


def _declare(planned: list[_Planned], additions: Mapping[str, Array], writer: gguf.GGUFWriter) -> None:
    for name, data in additions.items():
        writer.add_tensor_info(name, data.shape, data.dtype, data.nbytes)
    for one in planned:
        writer.add_tensor_info(
            one.target.name, one.source.shape, np.dtype(np.float32), one.size, raw_dtype=_TENSOR_TYPES[one.dtype]
        )


def _data(one: _Planned) -> Array:
    data = one.source.read()
    if one.target.reorder is not None:
        data = one.target.reorder(data)
    if one.target.change is not None or one.dtype != one.source.dtype:
        data = to_f32(data, one.source.dtype)
        if one.target.change is not None:
            data = one.target.change(data)
        data = _from_f32(data, one.dtype)
    return np.ascontiguousarray(data)


def check_room(what: str, total: int, room: int | None) -> None:
    """Raises DiskFull when that many bytes are more than may be written."""
    if room is not None and total > room:
        raise DiskFull(
            f"The converted {what} takes {total / 1e6:,.0f} MB, and there is room for {room / 1e6:,.0f} MB.",
            needed=total,
            free=room,
        )


def to_f32(data: Array, dtype: str) -> Array:
    """What a checkpoint stores, as numbers to compute with."""
    if dtype == "BF16":
        return (data.astype(np.uint32) << 16).view(np.float32)
    return data.astype(np.float32, copy=False)


def _from_f32(data: Array, dtype: str) -> Array:
    if dtype == "BF16":
        return _round_to_bf16(data)
    if dtype == "F16":
        return np.clip(data, -65504.0, 65504.0).astype(np.float16)
    return data


def _round_to_bf16(data: Array) -> Array:
    bits = np.ascontiguousarray(data, dtype=np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
