"""Write a model's weights in another type, with llama.cpp's quantizer."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llama_cpp import llama_cpp as lib

from runner.errors import DiskFull, InvalidRequest, ModelInvalid
from runner.jobs import Quantize, Quantized
from runner.llamacpp.importance import importance_table, read_importance
from runner.llamacpp.library import Library, LibraryLog

_BUFFER_BYTES = 512 * 1024 * 1024
"""Most that the quantizer keeps in memory of one tensor; its own default is 8 GiB."""
_NEARLY_FULL = 1024 * 1024
_TENSOR = re.compile(r"^\[ *\d+/ *\d+\] +(\S+) ")
_SIZE = re.compile(r"\bsize = +([0-9.]+) MiB(?: -> +[0-9.]+ MiB \((\w+)\))?")
_TOTAL_LINE = re.compile(r"(model|quant) size += +([0-9.]+) MiB")
_NEEDS_MATRIX = "require an imatrix"
_LACKS_TENSOR = re.compile(r"Missing importance matrix for tensor (\S+)")
_MEBIBYTE = 1024 * 1024

_BLIND_TYPES = frozenset({"iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s"})
"""Tensors of these types are garbage when nothing is known of their inputs."""
_Q2_K_S = 21
"""The number of the file type whose `q2_k` tensors are so too."""
_NEVER_BLIND = frozenset({"token_embd.weight", "output.weight"})


def quantize(job: Quantize, library: Library, on_progress: Callable[[float], None]) -> Quantized:
    """Write `job.target`; blocks for as long as it takes. `on_progress` hears fractions of the weights.

    Raises InvalidRequest for a type that wants an importance matrix, or a better one than there is; DiskFull before or
    while writing; and ModelInvalid for what the quantizer refuses. What was written is left to the caller.
    """
    log = _QuantizeLog()
    library.listen(log)
    try:
        return _quantize(job, log, on_progress)
    finally:
        library.listen(library.log)


def _quantize(job: Quantize, log: _QuantizeLog, on_progress: Callable[[float], None]) -> Quantized:
    values = read_importance(job.importance) if job.importance is not None else None
    table = importance_table(values) if values is not None else None
    _run(job, table, log, is_rehearsal=True)
    size = int(log.totals.get("quant", 0.0) * _MEBIBYTE)
    if values is None and log.needs_matrix:
        raise InvalidRequest("This type needs an importance matrix for this model.", "quantize")
    if values is not None:
        _check_covered(job, set(values), log.targets)
    if size > job.room:
        raise DiskFull(
            f"The quantized model takes about {size / 1e6:,.0f} MB, and there is room for {job.room / 1e6:,.0f} MB.",
            needed=size,
            free=job.room,
        )
    total = log.totals.get("model", 0.0) or 1.0
    log.on_tensor = lambda done: on_progress(done / total)
    _run(job, table, log, is_rehearsal=False)
    return Quantized(Path(job.target).stat().st_size)


def _check_covered(job: Quantize, known: set[str], targets: dict[str, str]) -> None:
    """Told before hours of work: llama.cpp would find out when it comes to the tensor."""
    blind = _BLIND_TYPES | ({"q2_k"} if job.file_type == _Q2_K_S else set())
    missing = [
        name for name, target in targets.items() if target in blind and name not in known and name not in _NEVER_BLIND
    ]
    if missing:
        raise _lacks(missing[0])


def _run(job: Quantize, table: Any, log: _QuantizeLog, *, is_rehearsal: bool) -> None:
    log.start_recording()
    params = lib.llama_model_quantize_default_params()
    params.ftype = job.file_type
    params.nthread = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    params.max_buf_size = _BUFFER_BYTES
    params.dry_run = is_rehearsal
    if table is not None:
        params.imatrix = table
    status = lib.llama_model_quantize(os.fsencode(job.files[0]), os.fsencode(job.target), ctypes.byref(params))
    if status == 0:
        return
    reason = "; ".join(log.errors) or "it gave no reason"
    if shutil.disk_usage(Path(job.target).parent).free < _NEARLY_FULL:
        raise DiskFull("The disk filled up while the quantized model was written.")
    if lacking := _LACKS_TENSOR.search(reason):
        raise _lacks(lacking[1])
    raise ModelInvalid(f"llama.cpp cannot quantize the model: {reason}")


def _lacks(tensor: str) -> InvalidRequest:
    return InvalidRequest(
        f"The importance matrix has nothing about {tensor}, and for this type it has to. It was made for another "
        "model, or from too short a text.",
        "imatrix",
    )


class _QuantizeLog(LibraryLog):
    """Reads the quantizer's log for how far it has come."""

    def __init__(self) -> None:
        super().__init__()
        self.totals: dict[str, float] = {}
        """MiB of the model as it is (`model`) and as it will be (`quant`)."""
        self.targets: dict[str, str] = {}
        """The type that each tensor gets, in small letters, as far as it is another one."""
        self.needs_matrix = False
        self.on_tensor: Callable[[float], None] = lambda _: None
        """Hears how many MiB of the model are done."""
        self._tensor = ""
        self._done = 0.0

    def start_recording(self) -> None:
        super().start_recording()
        self._done = 0.0

    def _read(self, line: str) -> None:
        super()._read(line)
        if match := _TENSOR.search(line):
            self._tensor = match[1]
        # A remark about the matrix may stand between a tensor's name and its size.
        if self._tensor and (match := _SIZE.search(line)):
            if match[2]:
                self.targets[self._tensor] = match[2].lower()
            self._tensor = ""
            self._done += float(match[1])
            self.on_tensor(self._done)
        elif match := _TOTAL_LINE.search(line):
            self.totals[match[1]] = float(match[2])
        elif _NEEDS_MATRIX in line:
            self.needs_matrix = True
