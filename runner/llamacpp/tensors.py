"""The tensors of a computation, while llama.cpp is at it: read through ggml's struct, whose layout is checked first."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt
from llama_cpp._ctypes_extensions import load_shared_library

from runner.errors import RunnerError

_DIMENSIONS = 4
_OPERANDS = 10
_F32, _I32 = 0, 26  # enum ggml_type


class _Struct(ctypes.Structure):
    """`ggml_tensor`, as far as its name."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * _DIMENSIONS),
        ("nb", ctypes.c_size_t * _DIMENSIONS),
        ("op", ctypes.c_int),
        ("op_params", ctypes.c_int32 * 16),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * _OPERANDS),
        ("view_src", ctypes.c_void_p),
        ("view_offs", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("name", ctypes.c_char * 64),
    )


class Tensors:
    """Makes `Tensor`s of the pointers that llama.cpp hands out. Make one for a computation."""

    def __init__(self) -> None:
        library = load_shared_library("ggml-base", Path(llama_cpp.__file__).parent / "lib")
        pointer = ctypes.c_void_p
        self._name = _function(library.ggml_get_name, pointer, pointer)
        self._data = _function(library.ggml_get_data, pointer, pointer)
        self._operation = _function(library.ggml_op_desc, ctypes.c_char_p, pointer)
        self._size = _function(library.ggml_nbytes, ctypes.c_size_t, pointer)
        self._get = _function(library.ggml_backend_tensor_get, None, pointer, pointer, ctypes.c_size_t, ctypes.c_size_t)
        self._is_checked = False

    def at(self, address: int) -> Tensor:
        """Raises RunnerError when ggml's struct is not laid out as this module believes."""
        struct = _Struct.from_address(address)
        if not self._is_checked:
            if self._name(address) != address + _Struct.name.offset or self._data(address) != struct.data:
                raise RunnerError("llama.cpp's tensors are laid out otherwise than expected; reinstall it.")
            self._is_checked = True
        return Tensor(self, address, struct)

    def operation_of(self, address: int) -> str:
        return (self._operation(address) or b"").decode("ascii", "replace")

    def bytes_of(self, address: int) -> npt.NDArray[np.uint8]:
        """A copy of what the tensor spans, wherever it lies: a tensor in a GPU's memory has no address here."""
        buffer = np.empty(self._size(address), dtype=np.uint8)
        self._get(address, buffer.ctypes.data, 0, buffer.nbytes)
        return buffer


class Tensor:
    """One tensor; valid for as long as the callback runs that was given it."""

    def __init__(self, tensors: Tensors, address: int, struct: _Struct) -> None:
        self._tensors = tensors
        self._address = address
        self._struct = struct

    @property
    def operation(self) -> str:
        """What computes it, such as `MUL_MAT`."""
        return self._tensors.operation_of(self._address)

    @property
    def name(self) -> str:
        """Without what ggml puts around it for a copy on another device: `CUDA0#blk.0.attn_q.weight#0`."""
        text: str = self._struct.name.decode("utf-8", "replace")
        return text.split("#")[1] if "#" in text else text

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The largest stride first, as numpy has it."""
        columns, rows, matrices, stacks = self._struct.ne
        return stacks, matrices, rows, columns

    @property
    def is_f32(self) -> bool:
        return bool(self._struct.type == _F32)

    def operand(self, number: int) -> Tensor:
        return self._tensors.at(self._struct.src[number])

    def numbers(self) -> npt.NDArray[Any]:
        """A copy of the values, which are F32 or I32, in the tensor's shape."""
        assert self._struct.type in (_F32, _I32)
        strides = tuple(reversed(self._struct.nb))
        dtype = np.float32 if self._struct.type == _F32 else np.int32
        return np.ndarray(self.shape, dtype, self._tensors.bytes_of(self._address), strides=strides)


def _function(function: Any, result: Any, *arguments: Any) -> Any:
    function.restype, function.argtypes = result, list(arguments)
    return function
