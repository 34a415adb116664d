"""python -P -m runner.worker: serve a model over standard input and output, do one job, or list devices."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from runner.engine import Engine
from runner.jobs import (
    BENCHMARK_FLAG,
    CALIBRATE_FLAG,
    MEASURE_FLAG,
    QUANTIZE_FLAG,
    Benchmark,
    Calibrate,
    Job,
    JobReport,
    Quantize,
)
from runner.llamacpp.benchmark import benchmark
from runner.llamacpp.devices import list_devices
from runner.llamacpp.engine import LlamaEngine
from runner.llamacpp.fit import measure_job
from runner.llamacpp.library import Library
from runner.llamacpp.quantize import quantize
from runner.logs import set_up_worker_logging
from runner.messages import Load
from runner.worker.job import run_job
from runner.worker.pipe import Pipe
from runner.worker.serve import serve


def main() -> None:
    # A Ctrl-C in the terminal is meant for the daemon, which drains its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # ggml would start a debugger to print a backtrace of its abort.
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")
    set_up_worker_logging()
    if sys.argv[1:] == ["--devices"]:
        Library()
        json.dump([asdict(device) for device in list_devices()], sys.stdout)
        return
    if sys.argv[1:] in ([QUANTIZE_FLAG], [CALIBRATE_FLAG], [MEASURE_FLAG], [BENCHMARK_FLAG]):
        run_job(_do)
    pipe = Pipe.take_over_standard_streams()
    serve(pipe, _load)


def _do(job: Job, on_progress: Callable[[float], None]) -> JobReport:
    library = Library()
    if isinstance(job, Quantize):
        _step_aside()
        return quantize(job, library, on_progress)
    if isinstance(job, Calibrate):
        # Only those who compute a matrix pay for what writes it.
        from runner.llamacpp.calibrate import calibrate

        _step_aside()
        return calibrate(job, library, on_progress)
    if isinstance(job, Benchmark):
        return benchmark(job, library, on_progress)
    return measure_job(job, library)


def _step_aside() -> None:
    """Long work lets running answers come first."""
    with contextlib.suppress(OSError, AttributeError):  # Windows has no such call
        os.nice(10)


def _load(command: Load, on_progress: Callable[[float], None]) -> Engine:
    shards = tuple(Path(shard) for shard in command.shards)
    projector = Path(command.projector) if command.projector else None
    return LlamaEngine(Library(), Path(command.model_path), command.options, on_progress, shards, projector)


main()
