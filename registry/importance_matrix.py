"""Importance matrices as llama.cpp writes them, in either of its formats: where the numbers of each tensor lie."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from registry.bounded_reader import BoundedReader
from registry.errors import InvalidRequest, ModelInvalid
from registry.gguf_header import MAX_TENSOR_NAME_BYTES, MAX_TENSORS, TensorInfo, read_header

_GGUF_MAGIC = b"GGUF"
_SUMS, _COUNTS = ".in_sum2", ".counts"
_F32_BYTES = 4
_MIN_ENTRY_BYTES = 4 + 1 + 4 + 4 + _F32_BYTES
_LARGEST_I32 = (1 << 31) - 1
_EMBEDDING = "token_embd.weight"
"""Looked up and not multiplied: the quantizer passes over what a matrix says of it."""


@dataclass(frozen=True, slots=True)
class TensorImportance:
    """What a matrix says of one tensor: sums of squares of its inputs, all in F32, and what they are divided by."""

    offset: int
    """Of the sums in the file."""
    columns: int
    matrices: int
    """How many lie one after another: 1, or one for each expert."""
    counts_offset: int | None = None
    """Of a divisor for each matrix; None where `calls` is the divisor of them all."""
    calls: int = 1

    @property
    def values(self) -> int:
        return self.columns * self.matrices


@dataclass(frozen=True, slots=True)
class ImportanceMatrix:
    """A file that was read, and what it has for each tensor by name."""

    path: Path
    tensors: Mapping[str, TensorImportance]


def read_importance_matrix(path: Path) -> ImportanceMatrix:
    """Read everything but the numbers, which may lie anywhere in the file but not beyond its end.

    Raises ModelInvalid for a file that is no matrix, with what is wrong.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ModelInvalid("The importance matrix is not a regular file.")
        with path.open("rb", buffering=0) as file:
            if file.read(len(_GGUF_MAGIC)) == _GGUF_MAGIC:
                return ImportanceMatrix(path, MappingProxyType(_read_gguf(path)))
            file.seek(0)
            source = BoundedReader(file, os.fstat(file.fileno()).st_size)
            return ImportanceMatrix(path, MappingProxyType(_read_plain(source)))
    except OSError as error:
        raise ModelInvalid(f"The importance matrix cannot be read: {error.strerror}.") from error


def check_importance(matrix: ImportanceMatrix, tensors: Sequence[TensorInfo]) -> None:
    """Raises InvalidRequest for a matrix that was made for another model."""
    known = [(tensor, matrix.tensors[tensor.name]) for tensor in tensors if tensor.name in matrix.tensors]
    if not known:
        raise InvalidRequest("The importance matrix names no tensor of this model.", field="imatrix")
    for tensor, importance in known:
        expected = tensor.shape[0] * (tensor.shape[2] if len(tensor.shape) > 2 else 1)
        if importance.values != expected and tensor.name != _EMBEDDING:
            raise InvalidRequest(
                f"The importance matrix has {importance.values} values for {tensor.name}, which has {expected} "
                "columns: it was made for another model.",
                field="imatrix",
            )


def _read_gguf(path: Path) -> dict[str, TensorImportance]:
    header = read_header(path)
    if header.values.get("general.type") != "imatrix":
        raise ModelInvalid("The file is in GGUF format and is no importance matrix: its general.type is not imatrix.")
    tensors = {tensor.name: tensor for tensor in header.tensors}
    found = {}
    for name, sums in tensors.items():
        if not name.endswith(_SUMS):
            continue
        of = name.removesuffix(_SUMS)
        counts = tensors.get(f"{of}{_COUNTS}")
        if counts is None or sums.type_name != "F32" or counts.type_name != "F32":
            raise ModelInvalid(f"The importance matrix has no sums and counts in F32 for {of!a}.")
        if sums.elements % counts.elements:
            raise ModelInvalid(
                f"The importance matrix has {sums.elements} sums and {counts.elements} counts for {of!a}, "
                "which do not go together."
            )
        found[of] = TensorImportance(
            header.data_start + sums.offset,
            sums.elements // counts.elements,
            counts.elements,
            header.data_start + counts.offset,
        )
    return _some(found)


def _read_plain(source: BoundedReader) -> dict[str, TensorImportance]:
    """The older format: entries one after another, each with its length; the end of the file does not matter."""
    count = _count(source, "the number of entries", MAX_TENSORS)
    if count * _MIN_ENTRY_BYTES > source.remaining:
        raise ModelInvalid("The file is no importance matrix in one of llama.cpp's two formats.")
    found = {}
    for index in range(count):
        where = f"entry {index} of the importance matrix"
        length = _count(source, f"the length of the name of {where}", MAX_TENSOR_NAME_BYTES)
        try:
            name = str(source.take(length, f"the name of {where}"), "utf-8")
        except UnicodeDecodeError:
            raise ModelInvalid(f"The name of {where} is not UTF-8.") from None
        if name in found:
            raise ModelInvalid(f"The importance matrix has {name!a} twice.")
        calls = _count(source, f"the calls of {where}", _LARGEST_I32, least=0)
        values = _count(source, f"the length of {where}", _LARGEST_I32)
        found[name] = TensorImportance(source.position, values, 1, calls=max(1, calls))
        source.skip(values * _F32_BYTES, where)
    return _some(found)


def _count(source: BoundedReader, where: str, most: int, *, least: int = 1) -> int:
    value = source.u32(where)
    if not least <= value <= most:
        raise ModelInvalid(f"The file is no importance matrix of llama.cpp: {where} is {value}.")
    return value


def _some(found: dict[str, TensorImportance]) -> dict[str, TensorImportance]:
    if not found:
        raise ModelInvalid("The importance matrix is empty.")
    return found
