"""Write a model's weights in another type, with llama.cpp's quantizer."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from llama_cpp import llama_cpp as lib

from runner.errors import DiskFull, ModelInvalid, Unsupported
from runner.jobs import Quantize, Quantized
from runner.llamacpp.library import Library, LibraryLog

_BUFFER_BYTES = 512 * 1024 * 1024
"""Most that the quantizer keeps in memory of one tensor; its own default is 8 GiB."""
_NEARLY_FULL = 1024 * 1024
_TENSOR_LINE = re.compile(r"^\[ *\d+/ *\d+\].* size = +([0-9.]+) MiB")
_TOTAL_LINE = re.compile(r"(model|quant) size += +([0-9.]+) MiB")
_NEEDS_MATRIX = "require an imatrix"
_MEBIBYTE = 1024 * 1024


def quantize(job: Quantize, library: Library, on_progress: Callable[[float], None]) -> Quantized:
    """Write `job.target`; blocks for as long as it takes. `on_progress` hears fractions of the weights.

    Raises Unsupported for a type that wants an importance matrix, DiskFull before or while writing,
    and ModelInvalid for what the quantizer refuses. What was written is left to the caller.
    """
    log = _QuantizeLog()
    library.listen(log)
    try:
        return _quantize(job, log, on_progress)
    finally:
        library.listen(library.log)


def _quantize(job: Quantize, log: _QuantizeLog, on_progress: Callable[[float], None]) -> Quantized:
    _run(job, log, is_rehearsal=True)
    size = int(log.totals.get("quant", 0.0) * _MEBIBYTE)
    if log.needs_matrix:
        raise Unsupported(
            "This type needs an importance matrix for this model, which is not supported; choose a larger type.",
            field="quantize",
        )
    if size > job.room:
        raise DiskFull(
            f"The quantized model takes about {size / 1e6:,.0f} MB, and there is room for {job.room / 1e6:,.0f} MB.",
            needed=size,
            free=job.room,
        )
    total = log.totals.get("model", 0.0) or 1.0
    log.on_tensor = lambda done: on_progress(done / total)
    _run(job, log, is_rehearsal=False)
    return Quantized(Path(job.target).stat().st_size)


def _run(job: Quantize, log: _QuantizeLog, *, is_rehearsal: bool) -> None:
    log.start_recording()
    params = lib.llama_model_quantize_default_params()
    params.ftype = job.file_type
    params.nthread = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    params.max_buf_size = _BUFFER_BYTES
    params.dry_run = is_rehearsal
    status = lib.llama_model_quantize(os.fsencode(job.files[0]), os.fsencode(job.target), ctypes.byref(params))
    if status == 0:
        return
    reason = "; ".join(log.errors) or "it gave no reason"
    if shutil.disk_usage(Path(job.target).parent).free < _NEARLY_FULL:
        raise DiskFull("The disk filled up while the quantized model was written.")
    if "imatrix" in reason:
        log.needs_matrix = True
        if is_rehearsal:
            return
    raise ModelInvalid(f"llama.cpp cannot quantize the model: {reason}")


class _QuantizeLog(LibraryLog):
    """Reads the quantizer's log for how far it has come."""

    def __init__(self) -> None:
        super().__init__()
        self.totals: dict[str, float] = {}
        """MiB of the model as it is (`model`) and as it will be (`quant`)."""
        self.needs_matrix = False
        self.on_tensor: Callable[[float], None] = lambda _: None
        """Hears how many MiB of the model are done."""
        self._done = 0.0

    def start_recording(self) -> None:
        super().start_recording()
        self._done = 0.0

    def _read(self, line: str) -> None:
        super()._read(line)
        if match := _TENSOR_LINE.search(line):
            self._done += float(match[1])
            self.on_tensor(self._done)
        elif match := _TOTAL_LINE.search(line):
            self.totals[match[1]] = float(match[2])
        elif _NEEDS_MATRIX in line:
            self.needs_matrix = True
