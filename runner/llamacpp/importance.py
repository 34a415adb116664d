"""An importance matrix in the form that llama.cpp's quantizer takes it in."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from llama_cpp import llama_cpp as lib

from runner.errors import ModelInvalid
from runner.jobs import Importance, TensorImportance

Values = npt.NDArray[np.float32]

_NOT_SEEN = np.float32(1)
"""Of an expert that no token came to: nothing is known of it, so that all its columns count alike."""


def read_importance(importance: Importance) -> dict[str, Values]:
    """The mean square of each column's input, by tensor; blocks. Raises ModelInvalid for what is no such number."""
    with Path(importance.file).open("rb") as file:
        return {one.name: _read(file, one) for one in importance.tensors}


def importance_table(values: Mapping[str, Values]) -> Any:
    """What the quantizer's parameters point to; `values` has to outlive it."""
    table = (lib.llama_model_imatrix_data * (len(values) + 1))()
    pointer = ctypes.POINTER(ctypes.c_float)
    for row, (name, array) in zip(table, values.items(), strict=False):
        row.name = name.encode()
        row.data = array.ctypes.data_as(pointer)
        row.size = array.size
    return table


def _read(file: BinaryIO, place: TensorImportance) -> Values:
    sums = _numbers(file, place.offset, place.columns * place.matrices, place.name)
    if place.counts_offset is None:
        return sums / np.float32(place.calls)
    counts = _numbers(file, place.counts_offset, place.matrices, place.name)[:, np.newaxis]
    means = np.where(counts > 0, sums.reshape(place.matrices, -1) / np.maximum(counts, 1), _NOT_SEEN)
    return np.ascontiguousarray(means, dtype=np.float32).reshape(-1)


def _numbers(file: BinaryIO, offset: int, count: int, name: str) -> Values:
    file.seek(offset)
    numbers = np.fromfile(file, "<f4", count)
    if numbers.size < count:
        raise ModelInvalid("The importance matrix became shorter while it was read.")
    if not (np.isfinite(numbers).all() and (numbers >= 0).all()):
        raise ModelInvalid(f"The importance matrix has values for {name} that are no means of squares.")
    return numbers.astype(np.float32, copy=False)
