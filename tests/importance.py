"""Importance matrices in both of llama.cpp's formats."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from registry.gguf_metadata import read_gguf

Values = dict[str, np.ndarray[Any, np.dtype[np.float32]]]

CALLS = 4


def random_matrix(model: Path, *, seed: int = 7) -> Values:
    """Means of squares for all weights of a model's blocks."""
    generator = np.random.default_rng(seed)
    return {
        tensor.name: generator.uniform(0.1, 4, tensor.shape[0]).astype(np.float32)
        for tensor in read_gguf(model).tensors
        if tensor.name.startswith("blk.") and len(tensor.shape) > 1
    }


def write_matrix(path: Path, values: Mapping[str, np.ndarray[Any, Any]], *, kind: str = "imatrix") -> Path:
    """In GGUF; rows of two-dimensional values are those of experts."""
    writer = gguf.GGUFWriter(path, "imatrix")
    writer.add_type(kind)
    for name, one in values.items():
        means = np.atleast_2d(one)
        writer.add_tensor(f"{name}.in_sum2", (means * CALLS).astype(np.float32))
        writer.add_tensor(f"{name}.counts", np.full((len(means), 1), CALLS, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_plain_matrix(path: Path, values: Mapping[str, np.ndarray[Any, Any]]) -> Path:
    """In the older format, with what the tools write behind the entries."""
    content = struct.pack("<i", len(values))
    for name, one in values.items():
        told = name.encode()
        content += struct.pack("<i", len(told)) + told + struct.pack("<ii", CALLS, one.size)
        content += (one * CALLS).astype("<f4").tobytes()
    path.write_bytes(content + struct.pack("<ii", CALLS, 4) + b"text")
    return path
