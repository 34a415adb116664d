"""How fast a model is on this machine, measured by a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from registry.stored_model import StoredModel
from runner.errors import EngineCrashed
from runner.jobs import BENCHMARK_FLAG, Benchmark, Benchmarked, JobProgress, Speed
from runner.supervisor.jobs import Jobs
from runner.supervisor.kernels import fast_files, has_fast_kernel, kernel_sentence, main_type

SECONDS = 12.0


@dataclass(frozen=True, slots=True)
class ModelSpeed:
    """What was measured, and what is known of the kernels that it was measured with."""

    measured: Benchmarked
    kind: str
    """The type of most weights."""
    fast_kernel: bool | None
    """For that type; None when the weights are not quantized."""
    kernel: str
    """One sentence on it."""
    fast_files: tuple[str, ...]
    """The types of files that are computed fast on the CPU, by the names that people use."""

    @property
    def best_prefill(self) -> Speed:
        return max(self.measured.speeds, key=lambda speed: speed.prefill)

    @property
    def best_decode(self) -> Speed:
        return max(self.measured.speeds, key=lambda speed: speed.decode)


class SpeedMeter:
    """Measures models, one at a time, so that no two measure each other. Belongs to the event loop's thread."""

    def __init__(self, jobs: Jobs | None = None, seconds: float = SECONDS) -> None:
        self._jobs = jobs or Jobs()
        self._seconds = seconds
        self._turn = asyncio.Lock()

    async def speed(self, model: StoredModel) -> AsyncGenerator[float | ModelSpeed, None]:
        """Fractions of the work, then what was found; closing this ends the work.

        Raises ModelInvalid or ModelCorrupt for a file that cannot be read, what the engine refuses
        as ReportedError, EngineCrashed, and ServerShutdown.
        """
        metadata = await asyncio.to_thread(model.metadata)
        kind = main_type(metadata.tensors)
        job = Benchmark(tuple(str(file) for file in model.model_paths), self._seconds)
        yield 0.0
        async with self._turn, contextlib.aclosing(self._jobs.follow(BENCHMARK_FLAG, job)) as reports:
            async for report in reports:
                if isinstance(report, JobProgress):
                    yield report.fraction
                elif isinstance(report, Benchmarked):
                    yield _found(report, kind)
                    return
        raise EngineCrashed("The process that measures ended without a word.")


def _found(measured: Benchmarked, kind: str) -> ModelSpeed:
    features = measured.features
    return ModelSpeed(
        measured,
        kind,
        has_fast_kernel(kind, features),
        kernel_sentence(kind, features),
        fast_files(features),
    )
