"""Have a short-lived process do a job: start it, follow what it tells, and end it when nobody follows any more."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from asyncio.subprocess import Process
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import msgspec

from runner.errors import EngineCrashed, ReportedError, ServerShutdown
from runner.jobs import Job, JobFailed, JobReport, decode_job_report, encode_job_frame
from runner.messages import FRAME_HEADER
from runner.supervisor.starting import WORKER_COMMAND, surroundings

logger = logging.getLogger(__name__)

_LARGEST_REPORT = 1024 * 1024
_LAST_WORDS = 2000


class Jobs:
    """The short-lived processes of a daemon, none of which outlives it. Belongs to the event loop's thread.

    When the daemon stops, whoever follows one is told so by ServerShutdown, and so is who asks for more.
    """

    def __init__(self, worker_command: Sequence[str] = WORKER_COMMAND) -> None:
        self._worker_command = tuple(worker_command)
        self._running: set[Process] = set()
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """End them all."""
        self._stopping.set()
        for process in self._running:
            _kill(process)

    async def follow(self, flag: str, job: Job) -> AsyncGenerator[JobReport, None]:
        """Everything that a worker with this flag tells of its job, the result last. Closing this ends its process.

        Raises what the job failed with as ReportedError, EngineCrashed when its process ends before, and
        ServerShutdown.
        """
        async with self.process([*self._worker_command, flag]) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            with contextlib.suppress(ConnectionError):  # it died at once, and reading tells
                process.stdin.write(encode_job_frame(job))
                await process.stdin.drain()
            while (report := await _next_report(process.stdout)) is not None:
                if isinstance(report, JobFailed):
                    raise ReportedError(report.code, report.message, report.facts)
                yield report
            code = await process.wait()
            if code != 0:
                raise EngineCrashed(f"The process that did the work {ending(code)}.")

    @asynccontextmanager
    async def process(self, command: Sequence[str]) -> AsyncGenerator[Process, None]:
        """A process with pipes and a clean environment, that is gone when this is left.

        What it says on standard error goes to the log when it fails. Raises EngineCrashed when it cannot be
        started, and ServerShutdown in place of every EngineCrashed that the daemon's end brought about.
        """
        if self._stopping.is_set():
            raise ServerShutdown
        process = await _started(command)
        words = asyncio.create_task(_last_words(process))
        self._running.add(process)
        if self._stopping.is_set():
            _kill(process)
        try:
            yield process
        except EngineCrashed:
            if self._stopping.is_set():
                raise ServerShutdown from None
            raise
        finally:
            self._running.discard(process)
            _kill(process)
            await process.wait()
            said = await words
            if process.returncode and process.returncode > 0 and said:
                logger.error("a job's process ended with exit code %d: %s", process.returncode, said)


async def _started(command: Sequence[str]) -> Process:
    try:
        return await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            **surroundings(),
        )
    except OSError as error:
        raise EngineCrashed(f"The process for the work could not be started ({error.strerror}).") from error


def _kill(process: Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()


def ending(code: int) -> str:
    """How a process ended, as people are told."""
    if code >= 0:
        return f"ended with exit code {code}"
    hint = " (the system does this when memory runs out)" if code == -9 else ""
    return f"was ended by signal {-code}{hint}"


async def _next_report(source: asyncio.StreamReader) -> JobReport | None:
    """None when there are no more."""
    try:
        (length,) = FRAME_HEADER.unpack(await source.readexactly(FRAME_HEADER.size))
        if length > _LARGEST_REPORT:
            raise EngineCrashed("The process that did the work sent something that is no report.")
        return decode_job_report(await source.readexactly(length))
    except asyncio.IncompleteReadError:
        return None
    except msgspec.DecodeError:
        raise EngineCrashed("The process that did the work sent something that is no report.") from None


async def _last_words(process: Process) -> str:
    assert process.stderr is not None
    words = b""
    while piece := await process.stderr.read(1 << 16):
        words = (words + piece)[-_LAST_WORDS:]
    return words.decode("utf-8", "replace").strip()
