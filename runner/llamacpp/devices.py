"""The devices ggml was built for, and where a model's layers go."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llama_cpp
import psutil
from llama_cpp._ctypes_extensions import load_shared_library

MARGIN = 512 * 1024 * 1024
"""Bytes left free on a GPU for its driver and the desktop."""

ALL_LAYERS = -1
"""llama.cpp's own word for every layer, the output layer included."""

_KINDS = {0: "cpu", 1: "gpu", 2: "igpu", 3: "accelerator"}  # enum ggml_backend_dev_type


@dataclass(frozen=True, slots=True)
class Device:
    """A device of this machine; memory in bytes."""

    name: str
    kind: str
    """`cpu`, `gpu`, `igpu` or `accelerator`."""
    description: str
    memory_free: int
    memory_total: int


@dataclass(frozen=True, slots=True)
class Placement:
    """How many layers go to GPUs, and the sentence that says why."""

    gpu_layers: int
    """`ALL_LAYERS`, or a count that llama.cpp caps at what the model has."""
    reason: str


def list_devices() -> list[Device]:
    """All devices of the loaded library, the CPU included. Initialises GPU backends, which can take a second."""
    ggml = _Ggml()
    devices = []
    for index in range(ggml.count()):
        handle = ggml.get(index)
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        ggml.memory(handle, ctypes.byref(free), ctypes.byref(total))
        kind = _KINDS.get(ggml.type(handle), "accelerator")
        # ggml reports all memory as free for the CPU.
        memory = psutil.virtual_memory()
        devices.append(
            Device(
                name=_text(ggml.name(handle)),
                kind=kind,
                description=_text(ggml.description(handle)),
                memory_free=memory.available if kind == "cpu" else free.value,
                memory_total=memory.total if kind == "cpu" else total.value,
            )
        )
    return devices


def place(gpus: Sequence[Device], wanted: int | None, measure: Callable[[], int]) -> Placement:
    """Choose the number of layers for the GPUs: as asked, else all if they fit, else none.

    `measure` tells how many bytes all layers need with their caches; it is asked only when that decides.
    """
    names = ", ".join(f"{gpu.name} ({gpu.description})" for gpu in gpus)
    if wanted == 0:
        return Placement(0, "CPU, because num_gpu is 0.")
    if not gpus:
        asked = "" if wanted is None or wanted < 0 else f" (num_gpu asked for {wanted} layers)"
        return Placement(0, f"CPU: the engine has no GPU to use{asked}.")
    if wanted is not None and wanted > 0:
        return Placement(wanted, f"Up to {wanted} layers on {names}, as num_gpu asks.")
    needed = measure()
    free = sum(max(gpu.memory_free - MARGIN, 0) for gpu in gpus)
    if needed <= free:
        return Placement(ALL_LAYERS, f"All layers on {names}.")
    return Placement(
        0,
        f"CPU: the model needs {_mebibytes(needed)} and {names} has {_mebibytes(free)} to give; "
        "set num_gpu to put some of its layers there.",
    )


def default_threads() -> int:
    """One thread for each physical core this process may use."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(psutil.cpu_count(logical=False) or usable, usable))


class _Override(ctypes.Structure):
    """`llama_model_tensor_buft_override`, which the Python package leaves opaque."""

    _fields_ = (("pattern", ctypes.c_char_p), ("buffer_type", ctypes.c_void_p))


def experts_on_cpu(layers: int) -> Any:
    """The list, ended as llama.cpp wants it, that keeps the experts of the first layers in the machine's memory."""
    pattern = rb"blk\.(%s)\.ffn_(up|down|gate|gate_up)_(ch|)exps" % b"|".join(
        b"%d" % n for n in range(min(layers, 512))
    )
    cpu = _Ggml().cpu_buffers()
    return (_Override * 2)(_Override(pattern, cpu), _Override(None, None))


class _Ggml:
    """ggml's device functions, which the Python package does not wrap."""

    def __init__(self) -> None:
        folder = Path(llama_cpp.__file__).parent / "lib"
        self._libraries = [load_shared_library(name, folder) for name in ("ggml", "ggml-base")]
        self.count = self._function("ggml_backend_dev_count", ctypes.c_size_t)
        self.get = self._function("ggml_backend_dev_get", ctypes.c_void_p, ctypes.c_size_t)
        self.name = self._function("ggml_backend_dev_name", ctypes.c_char_p, ctypes.c_void_p)
        self.description = self._function("ggml_backend_dev_description", ctypes.c_char_p, ctypes.c_void_p)
        self.type = self._function("ggml_backend_dev_type", ctypes.c_int, ctypes.c_void_p)
        self.cpu_buffers = self._function("ggml_backend_cpu_buffer_type", ctypes.c_void_p)
        size = ctypes.POINTER(ctypes.c_size_t)
        self.memory = self._function("ggml_backend_dev_memory", None, ctypes.c_void_p, size, size)

    def _function(self, name: str, result: Any, *arguments: Any) -> Any:
        for library in self._libraries:
            function = getattr(library, name, None)
            if function is not None:
                function.restype, function.argtypes = result, list(arguments)
                return function
        raise AttributeError(f"ggml lacks {name}")


def _text(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", "replace")


def _mebibytes(size: int) -> str:
    return f"{size / 1024 / 1024:,.0f} MiB"
