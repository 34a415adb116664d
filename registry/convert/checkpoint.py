"""A checkpoint: the folder of safetensors and JSON files that models are published as."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from registry.convert.config import Config
from registry.errors import ModelInvalid, Unsupported

MAX_HEADER_BYTES = 64 * 1024 * 1024
MAX_JSON_BYTES = 128 * 1024 * 1024
MAX_DIMENSIONS = 4
_LARGEST = 1 << 48
_LENGTH = struct.Struct("<Q")
_INDEX = "model.safetensors.index.json"

Array = np.ndarray[Any, np.dtype[Any]]

_STORED: Mapping[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "I64": np.dtype("<i8"),
}
"""How each type is read; numpy has no BF16, whose bits are read as integers."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where a tensor's data is."""

    name: str
    dtype: str
    """F32, F16, BF16 or I64."""
    shape: tuple[int, ...]
    file: Path
    offset: int
    size: int
    """In bytes."""

    def read(self) -> Array:
        """The data in its own type, BF16 as 16-bit integers; blocks. Raises ModelInvalid."""
        with self.file.open("rb") as file:
            file.seek(self.offset)
            content = file.read(self.size)
        if len(content) != self.size:
            raise ModelInvalid(f"{self.file.name} became shorter while it was read.")
        return np.frombuffer(content, dtype=_STORED[self.dtype]).reshape(self.shape)


class Checkpoint:
    """The files of one checkpoint. Nothing of the weights is read before it is asked for."""

    def __init__(self, folder: Path) -> None:
        """Reads every header. Raises ModelInvalid or Unsupported."""
        self._folder = folder
        config = self.read_json("config.json")
        if config is None:
            raise ModelInvalid("The checkpoint has no config.json.")
        self.config = Config(config)
        self.tensors: dict[str, StoredTensor] = {}
        files = sorted(folder.glob("*.safetensors"))
        if not files:
            raise ModelInvalid("The checkpoint has no safetensors.")
        for file in files:
            for tensor in read_safetensors(file):
                if tensor.name in self.tensors:
                    raise ModelInvalid(f"The tensor {tensor.name!a} is in more than one file.")
                self.tensors[tensor.name] = tensor
        self._check_index()

    def read_json(self, name: str) -> dict[str, Any] | None:
        """A JSON object of the checkpoint, None when there is no such file. Raises ModelInvalid."""
        return read_json_file(self._folder / name)

    def read_text(self, name: str) -> str | None:
        """A text file of the checkpoint, None when there is no such file. Raises ModelInvalid."""
        return _read_text(self._folder / name)

    def read_bytes(self, name: str) -> bytes | None:
        return _read_bytes(self._folder / name)

    def _check_index(self) -> None:
        index = self.read_json(_INDEX)
        promised = index.get("weight_map") if index else None
        if isinstance(promised, dict):
            missing = next((name for name in promised if name not in self.tensors), None)
            if missing is not None:
                raise ModelInvalid(f"{promised[missing]} is missing: {_INDEX} says that it has {missing!a}.")


def read_json_file(path: Path) -> dict[str, Any] | None:
    """A JSON object, None when there is no such file. Raises ModelInvalid."""
    content = _read_text(path)
    if content is None:
        return None
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        raise ModelInvalid(f"{path.name} is not JSON.") from None
    if not isinstance(document, dict):
        raise ModelInvalid(f"{path.name} is not a JSON object.")
    return document


def _read_text(path: Path) -> str | None:
    content = _read_bytes(path)
    try:
        return None if content is None else content.decode()
    except UnicodeDecodeError:
        raise ModelInvalid(f"{path.name} is not UTF-8.") from None


def _read_bytes(path: Path) -> bytes | None:
    if not path.is_file():
        return None
    if path.stat().st_size > MAX_JSON_BYTES:
        raise ModelInvalid(f"{path.name} has more than {MAX_JSON_BYTES} bytes.")
    return path.read_bytes()


def read_safetensors(path: Path) -> Iterator[StoredTensor]:
    """The tensors of one file; every place is inside the file. Raises ModelInvalid or Unsupported."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(_LENGTH.size)
        length = _LENGTH.unpack(start)[0] if len(start) == _LENGTH.size else 0
        if not 2 <= length <= min(MAX_HEADER_BYTES, size - _LENGTH.size):
            raise ModelInvalid(f"{path.name} is not in safetensors format.")
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError):
            raise ModelInvalid(f"The header of {path.name} is not JSON.") from None
    if not isinstance(header, dict):
        raise ModelInvalid(f"The header of {path.name} is not a JSON object.")
    data = _LENGTH.size + length
    for name, entry in header.items():
        if name != "__metadata__":
            yield _read_entry(path, name, entry, data, size)


def _read_entry(path: Path, name: str, entry: object, data: int, size: int) -> StoredTensor:
    where = f"The tensor {name[:80]!a} of {path.name}"
    if not isinstance(entry, Mapping):
        raise ModelInvalid(f"{where} is not described.")
    dtype, shape, place = entry.get("dtype"), _counts(entry.get("shape")), _counts(entry.get("data_offsets"))
    if not isinstance(dtype, str) or dtype not in _STORED:
        raise Unsupported(f"{where} is of the type {str(dtype)[:20]!a}; F32, F16 and BF16 are converted.")
    if shape is None or len(shape) > MAX_DIMENSIONS:
        raise ModelInvalid(f"{where} has no sound shape.")
    if place is None or len(place) != 2:
        raise ModelInvalid(f"{where} has no place.")
    begin, end = place
    expected = math.prod(shape) * _STORED[dtype].itemsize
    if end - begin != expected or data + end > size:
        raise ModelInvalid(f"{where} does not lie inside the file, or has another size than its shape says.")
    return StoredTensor(name, dtype, shape, path, data + begin, expected)


def _counts(value: object) -> tuple[int, ...] | None:
    """A list of counts; None for anything else."""
    if not isinstance(value, list) or not all(type(one) is int and 0 <= one < _LARGEST for one in value):
        return None
    return tuple(value)
