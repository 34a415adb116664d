"""Quantizing and converting, in processes of their own."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path

from registry.file_types import file_type_number
from registry.importance_matrix import ImportanceMatrix
from runner.errors import EngineCrashed, ReportedError
from runner.jobs import (
    CALIBRATE_FLAG,
    QUANTIZE_FLAG,
    Calibrate,
    Calibrated,
    Importance,
    Job,
    JobProgress,
    Quantize,
    Quantized,
    TensorImportance,
)
from runner.supervisor.jobs import Jobs, ending

CONVERTER_COMMAND = (sys.executable, "-P", "-m", "registry.convert")


class ProcessWorkshop:
    """A `registry.workshop.Workshop` that starts one process for each piece of work."""

    def __init__(
        self,
        keep_free_bytes: int,
        jobs: Jobs | None = None,
        converter_command: Sequence[str] = CONVERTER_COMMAND,
    ) -> None:
        self._keep_free_bytes = keep_free_bytes
        self._jobs = jobs or Jobs()
        self._converter_command = tuple(converter_command)

    def quantize(
        self, files: Sequence[Path], target: Path, file_type: str, matrix: ImportanceMatrix | None = None
    ) -> AsyncGenerator[float, None]:
        """As `Workshop.quantize`. Raises ReportedError, EngineCrashed and ServerShutdown."""
        importance = importance_of(matrix) if matrix is not None else None
        job = Quantize(_texts(files), str(target), file_type_number(file_type), self._room(target), importance)
        return self._do(QUANTIZE_FLAG, job, Quantized, "quantized the model")

    def calibrate(self, files: Sequence[Path], text: Path, target: Path) -> AsyncGenerator[float, None]:
        """As `Workshop.calibrate`. Raises as `quantize`."""
        job = Calibrate(_texts(files), str(text), str(target))
        return self._do(CALIBRATE_FLAG, job, Calibrated, "computed the importance matrix")

    async def _do(
        self, flag: str, job: Job, result: type[Quantized | Calibrated], what: str
    ) -> AsyncGenerator[float, None]:
        is_done = False
        async with contextlib.aclosing(self._jobs.follow(flag, job)) as reports:
            async for report in reports:
                if isinstance(report, JobProgress):
                    yield report.fraction
                is_done = is_done or isinstance(report, result)
        if not is_done:
            raise EngineCrashed(f"The process that {what} ended too early.")
        yield 1.0

    async def convert(
        self, folder: Path, target: Path, adapter_of: Mapping[str, object] | None = None
    ) -> AsyncGenerator[float, None]:
        """As `Workshop.convert`. Raises ReportedError, EngineCrashed and ServerShutdown."""
        command = [*self._converter_command, "--piped", "--room", str(self._room(target)), str(folder), str(target)]
        if adapter_of is not None:
            command += ["--adapter-of", json.dumps(adapter_of)]
        is_done = False
        async with self._jobs.process(command) as process:
            assert process.stdout is not None
            async for line in process.stdout:
                told = _read(line)
                if isinstance(told, ReportedError):
                    raise told
                is_done = told >= 1.0
                yield told
            code = await process.wait()
            if code != 0 or not is_done:
                raise EngineCrashed(f"The process that converted the model {ending(code)}.")

    def _room(self, target: Path) -> int:
        return max(0, shutil.disk_usage(target.parent).free - self._keep_free_bytes)


def _texts(files: Sequence[Path]) -> tuple[str, ...]:
    return tuple(str(file) for file in files)


def importance_of(matrix: ImportanceMatrix) -> Importance:
    """A matrix in the words of the jobs."""
    tensors = (
        TensorImportance(name, one.offset, one.columns, one.matrices, one.counts_offset, one.calls)
        for name, one in matrix.tensors.items()
    )
    return Importance(str(matrix.path), tuple(tensors))


def _read(line: bytes) -> float | ReportedError:
    """A fraction, or what the converter refuses with."""
    try:
        told = json.loads(line)
        if "error" in told:
            facts = {name: value for name, value in told.items() if name not in ("error", "code")}
            return ReportedError(str(told["code"]), str(told["error"]), facts)
        return float(told["fraction"])
    except (ValueError, TypeError, KeyError):
        raise EngineCrashed("The process that converted the model said something else than was asked.") from None
