"""Reads the header of a GGUF file piece by piece, checking every count against the file before it is believed."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from registry.bounded_reader import MAX_STRING_BYTES, BoundedReader
from registry.errors import ModelInvalid
from registry.gguf_types import ARRAY, SCALARS, STRING, TENSOR_TYPES
from registry.gguf_vocabulary import (
    TOKEN_TYPE_BYTES,
    TOKEN_TYPES,
    VOCABULARY,
    VocabularyFacts,
    check_vocabulary_size,
    read_vocabulary,
)

MetadataValue = int | float | bool | str | list[int] | list[float] | list[bool] | list[str] | None

MAX_KEY_BYTES = 65535
MAX_KEPT_BYTES = 32 * 1024 * 1024
MAX_PAIRS = 16384
MAX_TENSORS = 65536
MAX_DIMENSIONS = 4
MAX_TENSOR_NAME_BYTES = 127
MAX_ALIGNMENT = 1 << 20
MAX_ARRAY_ENTRIES = 8_000_000
"""Of all arrays together: large vocabularies have half a million strings, and each costs time to step over."""
KEPT_ARRAY_ENTRIES = 1024
"""Longer arrays, such as the vocabulary, are stepped over."""

_DEFAULT_ALIGNMENT = 32
_SUPPORTED_VERSIONS = (2, 3)
_MIN_PAIR_BYTES = 8 + 4 + 1
_MIN_TENSOR_BYTES = 8 + 4 + 4 + 8


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor: `offset` counts from the start of the file's data, `size` is in bytes."""

    name: str
    type_name: str
    shape: tuple[int, ...]
    offset: int
    size: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """Everything before the tensors' data."""

    version: int
    values: dict[str, MetadataValue]
    array_lengths: dict[str, int]
    tensors: tuple[TensorInfo, ...]
    data_start: int
    """Where in the file the tensors' data begins."""
    vocabulary: VocabularyFacts | None = None
    """None for a file without one."""


def split_of(values: Mapping[str, MetadataValue]) -> tuple[int, int] | None:
    """Number, from 0, and count of a file that is a part of a model; None for one that stands alone."""
    number, count = (values.get(key, 0) for key in ("split.no", "split.count"))
    if not isinstance(number, int) or not isinstance(count, int) or count < 2:
        return None
    return number, count


def read_header(path: Path) -> GgufHeader:
    """Read the header of a model file. Raises ModelInvalid with what is wrong and where."""
    try:
        # A pipe or a device has no size to check against, and opening one may never return.
        if not stat.S_ISREG(path.stat().st_mode):
            raise ModelInvalid(f"{path.name} is not a regular file.")
        with path.open("rb", buffering=0) as file:
            return _parse(BoundedReader(file, os.fstat(file.fileno()).st_size))
    except OSError as error:
        raise ModelInvalid(f"{path.name} cannot be read: {error.strerror}.") from error


def _parse(source: BoundedReader) -> GgufHeader:
    version = _read_version(source)
    tensor_count = source.u64("the number of tensors")
    pair_count = source.u64("the number of metadata pairs")
    _check_count("tensors", tensor_count, MAX_TENSORS, _MIN_TENSOR_BYTES, source)
    _check_count("metadata pairs", pair_count, MAX_PAIRS, _MIN_PAIR_BYTES, source)
    pairs = _Pairs(source)
    for index in range(pair_count):
        pairs.read(index)
    # The first shard of a model may hold its metadata alone.
    if tensor_count == 0 and "split.count" not in pairs.values:
        raise ModelInvalid("The file holds no tensors, so that it is not a model.")
    alignment = _alignment(pairs.values)
    tensors = _read_tensors(source, tensor_count, alignment)
    data_start = _aligned(source.position, alignment)
    _check_data(tensors, data_start, source.size)
    types = source.again(*pairs.token_types) if pairs.token_types else b""
    vocabulary = read_vocabulary(source.again(*pairs.vocabulary), types) if pairs.vocabulary else None
    return GgufHeader(version, pairs.values, pairs.array_lengths, tensors, data_start, vocabulary)


def _read_version(source: BoundedReader) -> int:
    if source.size < 4 or bytes(source.take(4, "the file's mark")) != b"GGUF":
        raise ModelInvalid("The file does not begin with GGUF, so that it is not in GGUF format.")
    version = source.u32("the version")
    if version & 0xFFFF == 0 and version != 0:
        raise ModelInvalid("The file is big-endian GGUF; convert it to little-endian.")
    if version not in _SUPPORTED_VERSIONS:
        raise ModelInvalid(f"The file is GGUF version {version}; versions 2 and 3 are read.")
    return version


def _check_count(what: str, count: int, most: int, least_bytes: int, source: BoundedReader) -> None:
    if count > most:
        raise ModelInvalid(f"The file claims {count} {what}; at most {most} are read.")
    if count * least_bytes > source.remaining:
        raise ModelInvalid(f"The file claims {count} {what}, more than its {source.size} bytes can hold.")


class _Pairs:
    """Collects metadata pairs, within one budget of memory and entries for the whole file."""

    def __init__(self, source: BoundedReader) -> None:
        self.values: dict[str, MetadataValue] = {}
        self.array_lengths: dict[str, int] = {}
        self.vocabulary: tuple[int, int] | None = None
        """Where its tokens begin and end."""
        self.token_types: tuple[int, int] | None = None
        """Where their types do, four bytes each."""
        self._source = source
        self._kept_bytes = 0
        self._entries = 0

    def read(self, index: int) -> None:
        source = self._source
        where = f"metadata pair {index}"
        key = source.text(MAX_KEY_BYTES, f"the key of {where}", strict=True)
        _check_name(key, f"The key of {where}")
        if key in self.values:
            raise ModelInvalid(f"The key {_shown(key)} comes twice, the second time as {where}.")
        where = f"{_shown(key)} ({where})"
        self._keep(len(key), where)
        kind = source.u32(f"the type of {where}")
        if kind == ARRAY:
            self.values[key] = self._array(key, where)
        elif kind == STRING:
            self.values[key] = self._string(where)
        elif kind in SCALARS:
            self.values[key] = source.scalar(SCALARS[kind], where)
        else:
            raise ModelInvalid(f"{where} has the unknown type {kind}.")

    def _string(self, where: str) -> str:
        text = self._source.text(MAX_STRING_BYTES, where)
        self._keep(len(text), where)
        # The engine sees no more of it: what is judged here has to be what is used there.
        return text.partition("\0")[0]

    def _keep(self, size: int, where: str) -> None:
        self._kept_bytes += size
        if self._kept_bytes > MAX_KEPT_BYTES:
            raise ModelInvalid(f"The metadata has more than {MAX_KEPT_BYTES} bytes of text at {where}.")

    def _array(self, key: str, where: str) -> MetadataValue:
        source = self._source
        kind = source.u32(f"the entry type of {where}")
        count = source.u64(f"the length of {where}")
        self.array_lengths[key] = count
        if kind == ARRAY:
            raise ModelInvalid(f"{where} is an array of arrays, which no model has.")
        if kind != STRING and kind not in SCALARS:
            raise ModelInvalid(f"{where} has entries of the unknown type {kind}.")
        self._entries += count
        if self._entries > MAX_ARRAY_ENTRIES:
            raise ModelInvalid(
                f"The arrays have more than {MAX_ARRAY_ENTRIES} entries in all, with {count} in {where}."
            )
        least_bytes = 8 if kind == STRING else SCALARS[kind].size
        if count * least_bytes > source.remaining:
            raise ModelInvalid(f"{where} claims {count} entries, more than the rest of the file can hold.")
        if kind == STRING:
            start = source.position
            kept = [self._string(where) for _ in range(count)] if count <= KEPT_ARRAY_ENTRIES else None
            if kept is None:
                source.skip_strings(count, where)
            if key == VOCABULARY:
                check_vocabulary_size(count, source.position - start)
                self.vocabulary = start, source.position
            return kept
        if key == TOKEN_TYPES and least_bytes == TOKEN_TYPE_BYTES:
            self.token_types = source.position, source.position + count * least_bytes
        if count <= KEPT_ARRAY_ENTRIES:
            return source.scalars(SCALARS[kind], count, where)
        source.skip(count * least_bytes, where)
        return None


def _alignment(values: dict[str, MetadataValue]) -> int:
    alignment = values.get("general.alignment", _DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or isinstance(alignment, bool):
        raise ModelInvalid("general.alignment is not an integer.")
    if not 1 <= alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        raise ModelInvalid(f"general.alignment is {alignment}, not a power of two up to {MAX_ALIGNMENT}.")
    if alignment < _DEFAULT_ALIGNMENT:
        # The engine maps the file, and needs what it maps to begin there.
        raise ModelInvalid(f"general.alignment is {alignment}; the engine needs at least {_DEFAULT_ALIGNMENT}.")
    return alignment


def _read_tensors(source: BoundedReader, count: int, alignment: int) -> tuple[TensorInfo, ...]:
    tensors: list[TensorInfo] = []
    names: set[str] = set()
    expected = 0
    for index in range(count):
        tensor = _read_tensor(source, index)
        where = f"tensor {index} ({_shown(tensor.name)})"
        if tensor.name in names:
            raise ModelInvalid(f"The name of {where} comes twice.")
        names.add(tensor.name)
        if tensor.offset % alignment:
            raise ModelInvalid(f"{where} begins at {tensor.offset}, which is not a multiple of {alignment}.")
        if tensor.offset < expected:
            raise ModelInvalid(f"{where} begins at {tensor.offset}, inside the tensor before it.")
        # The engine takes tensors only in order and without gaps; it would refuse later and less clearly.
        if tensor.offset > expected:
            raise ModelInvalid(f"{where} begins at {tensor.offset}; {expected} would follow the tensor before it.")
        expected = _aligned(tensor.offset + tensor.size, alignment)
        tensors.append(tensor)
    return tuple(tensors)


def _read_tensor(source: BoundedReader, index: int) -> TensorInfo:
    where = f"tensor {index}"
    name = source.text(MAX_TENSOR_NAME_BYTES, f"the name of {where}", strict=True)
    _check_name(name, f"The name of {where}")
    where = f"{where} ({_shown(name)})"
    dimensions = source.u32(f"the dimensions of {where}")
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise ModelInvalid(f"{where} has {dimensions} dimensions; 1 to {MAX_DIMENSIONS} are possible.")
    shape = tuple(source.u64(f"the shape of {where}") for _ in range(dimensions))
    elements = math.prod(shape)
    if elements == 0:
        raise ModelInvalid(f"{where} has no elements.")
    if elements >= 1 << 62:
        raise ModelInvalid(f"The dimensions of {where} overflow.")
    kind = source.u32(f"the type of {where}")
    tensor_type = TENSOR_TYPES.get(kind)
    if tensor_type is None:
        raise ModelInvalid(f"{where} has the unknown type {kind}.")
    if shape[0] % tensor_type.block_elements:
        raise ModelInvalid(
            f"{where} has rows of {shape[0]} elements, "
            f"not a multiple of {tensor_type.name}'s {tensor_type.block_elements}."
        )
    size = elements // tensor_type.block_elements * tensor_type.block_bytes
    return TensorInfo(name, tensor_type.name, shape, source.u64(f"the offset of {where}"), size)


def _check_data(tensors: tuple[TensorInfo, ...], start: int, file_size: int) -> None:
    for index, tensor in enumerate(tensors):
        end = start + tensor.offset + tensor.size
        if end > file_size:
            raise ModelInvalid(
                f"tensor {index} ({_shown(tensor.name)}) ends at {end}, beyond the file's end at {file_size}; "
                "the file is truncated or damaged."
            )


def _aligned(position: int, alignment: int) -> int:
    return -(-position // alignment) * alignment


def _check_name(name: str, where: str) -> None:
    if not name:
        raise ModelInvalid(f"{where} is empty.")
    if "\0" in name:
        raise ModelInvalid(f"{where} ({_shown(name)}) has a zero byte in it, where the engine would see its end.")


def _shown(name: str) -> str:
    return ascii(name) if len(name) <= 80 else f"{name[:80]!a}…"
