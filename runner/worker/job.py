"""A short-lived worker: does one job, tells how it goes, and ends; or ends as soon as nobody listens."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable
from typing import BinaryIO, NoReturn

from runner.errors import RunnerError
from runner.jobs import Job, JobFailed, JobProgress, JobReport, decode_job, encode_job_frame
from runner.messages import FRAME_HEADER

logger = logging.getLogger(__name__)

EXIT_DONE = 0
EXIT_BROKEN = 70
_STEPS = 200
"""Most reports of progress, so that telling of the work does not slow it down."""

Progress = Callable[[float], None]
JobFunction = Callable[[Job, Progress], JobReport]


def run_job(do: JobFunction) -> NoReturn:
    """Read one job from standard input, do it on the calling thread, and end the process."""
    sink = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    source = sys.stdin.buffer
    job = _read_job(source)
    threading.Thread(target=_end_with, args=(source,), name="listener", daemon=True).start()
    try:
        _write(sink, _result(do, job, sink))
    except OSError:
        pass
    except Exception:
        logger.exception("the job ended")
        os._exit(EXIT_BROKEN)
    os._exit(EXIT_DONE)


def _result(do: JobFunction, job: Job, sink: BinaryIO) -> JobReport:
    told = 0

    def tell(fraction: float) -> None:
        nonlocal told
        step = int(fraction * _STEPS)
        if step > told:
            told = step
            _write(sink, JobProgress(min(fraction, 1.0)))

    try:
        return do(job, tell)
    except RunnerError as error:
        return JobFailed(error.code, error.message, dict(error.facts))


def _read_job(source: BinaryIO) -> Job:
    (length,) = FRAME_HEADER.unpack(source.read(FRAME_HEADER.size))
    return decode_job(source.read(length))


def _end_with(source: BinaryIO) -> None:
    source.read(1)
    os._exit(EXIT_DONE)


def _write(sink: BinaryIO, report: JobReport) -> None:
    frame = memoryview(encode_job_frame(report))
    while frame:
        frame = frame[sink.write(frame) or 0 :]
