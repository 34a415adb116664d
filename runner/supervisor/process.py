"""WorkerProcess: one worker, from its start to its end.

    starting ──Loaded──▶ ready ──stop()──▶ stopping ──▶ gone
        └────────────────────┴──died, killed, refused──▶ gone

A worker is one life: after a crash the supervisor makes another. `on_gone` is called once, when
nothing of the process is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import signal
import subprocess
from collections.abc import Callable, Sequence
from typing import cast

from runner.chat.types import Failed
from runner.errors import EngineCrashed, ReportedError, RunnerError
from runner.loaded_model import LoadedModel
from runner.messages import Load, Loaded, LoadProgress
from runner.supervisor.client import GarbledPipe, LoadReport, MemoryReport, WorkerClient
from runner.supervisor.starting import surroundings
from runner.supervisor.worker_log import LogRelay

logger = logging.getLogger(__name__)

STOP_SECONDS = 3.0
"""What a worker gets to end by itself, and again after being asked to terminate."""
LAST_WORDS_SECONDS = 0.25
"""Between the end of the pipe and the end of the process, before the latter is forced."""


class WorkerState(enum.StrEnum):
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    GONE = "gone"


class WorkerProcess:
    """Owns one process and its state. All methods belong to the event loop's thread."""

    def __init__(
        self,
        command: Sequence[str],
        name: str,
        *,
        watchdog_seconds: float,
        on_gone: Callable[[WorkerProcess], None],
        on_memory_report: Callable[[MemoryReport], None] = lambda _report: None,
    ) -> None:
        self.state = WorkerState.STARTING
        self.pid: int | None = None
        self.load_fraction = 0.0
        self.ready_at: float | None = None
        """When it became ready, on the loop's clock."""
        self.was_stopped = False
        """It ended, or ends, because we wanted it to."""
        self.failure: RunnerError | None = None
        """Why it is gone: what loading failed with, or that it crashed."""
        self.ending = ""
        """How its process ended, in words that follow its name; streams of one that crashed are still open then."""
        self._command = tuple(command)
        self._name = name
        self._watchdog_seconds = watchdog_seconds
        self._on_gone = on_gone
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[LoadedModel] = self._loop.create_future()
        self._gone = asyncio.Event()
        self._transport: asyncio.SubprocessTransport | None = None
        self._stdin: asyncio.WriteTransport | None = None
        self._log = LogRelay(name)
        self._open_pipes = {1, 2}
        self._has_exited = False
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._cause: str | None = None
        self.client = WorkerClient(self._write, self._take_load_report, self._loop.time, on_memory_report)

    async def start(self, load: Load) -> None:
        """Spawn the process and tell it what to load; `ensure_ready` tells how that went."""
        try:
            await self._loop.subprocess_exec(
                lambda: _Pipes(self),
                *self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                **surroundings(),
            )
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else None
            self._cause = f"could not be started ({reason or type(error).__name__})"
            self._finish()
            return
        if self._cause is not None or self.was_stopped:  # given up while it was being spawned
            self._force()
        else:
            self.client.send(load)

    async def ensure_ready(self) -> LoadedModel:
        """Wait until the model is loaded; raises what went wrong with it, as often as it is asked."""
        return await asyncio.shield(self._ready)

    async def stop(self) -> None:
        """End the process and return when it is gone: ask, then terminate, then kill.

        Streams that are still open fail as if it had crashed; take them away first if they should not.
        """
        self.was_stopped = True
        if self.state is not WorkerState.GONE:
            self.state = WorkerState.STOPPING
            if self._stdin is not None:
                self._stdin.close()
            for harder in (self._terminate, self._force):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._gone.wait(), STOP_SECONDS)
                    return
                harder()
        await self._gone.wait()

    def kill(self, cause: str | None = None) -> None:
        """End the process at once. With a `cause` it counts as a crash, told as "The model's process <cause>"."""
        if cause is None:
            self.was_stopped = True
        elif self._cause is None:
            self._cause = cause
        if self.state is not WorkerState.GONE:
            self.state = WorkerState.STOPPING
            self._force()

    async def wait_gone(self) -> None:
        await self._gone.wait()

    # --- called by the pipes ---

    def _spawned(self, transport: asyncio.SubprocessTransport) -> None:
        self._transport = transport
        self.pid = transport.get_pid()
        self._stdin = cast("asyncio.WriteTransport", transport.get_pipe_transport(0))

    def _received(self, fd: int, data: bytes) -> None:
        if fd == 2:
            self._log.feed(data)
            return
        try:
            self.client.feed(data)
        except GarbledPipe as error:
            logger.error("%s: %s", self._name, error)
            self.kill("sent something that is no message and was ended")

    def _pipe_closed(self, fd: int) -> None:
        self._open_pipes.discard(fd)
        if fd == 1 and not self._has_exited:
            # A process without its output is of no use; usually it is just exiting.
            self._after(LAST_WORDS_SECONDS, "exit", self._force)
        self._finish_when_over()

    def _exited(self) -> None:
        self._has_exited = True
        # What it wrote last may still be in the pipes; a child of it might keep them open for ever.
        self._after(LAST_WORDS_SECONDS, "pipes", self._finish)
        self._finish_when_over()

    # --- private ---

    def _write(self, data: bytes) -> None:
        if self._stdin is not None and not self._stdin.is_closing():
            self._stdin.write(data)

    def _take_load_report(self, report: LoadReport) -> None:
        if isinstance(report, LoadProgress):
            self.load_fraction = report.fraction
        elif self._ready.done() or self.state is not WorkerState.STARTING:
            return
        elif isinstance(report, Loaded):
            self.state = WorkerState.READY
            self.ready_at = self._loop.time()
            self._ready.set_result(report.model)
            self._watch()
        else:
            self.failure = ReportedError(report.code, report.message, report.facts)
            self._fail_ready(self.failure)
            self.was_stopped = True
            if self._stdin is not None:
                self._stdin.close()
            self._after(STOP_SECONDS, "exit", self._force)

    def _watch(self) -> None:
        limit = self._watchdog_seconds
        if limit <= 0 or self.state is not WorkerState.READY:
            return
        if self.client.silence() <= limit:
            self._after(max(0.05, min(5.0, limit / 4)), "watchdog", self._watch)
        else:
            # Once more after a turn of the loop: it may have been this process that stood still.
            self._after(0.1, "watchdog", self._bite)

    def _bite(self) -> None:
        if self.client.silence() > self._watchdog_seconds:
            logger.error("%s: no progress for %.0f seconds, ending its process", self._name, self._watchdog_seconds)
            self.kill(f"made no progress for {self._watchdog_seconds:g} s and was ended")
        else:
            self._watch()

    def _terminate(self) -> None:
        if self._transport is not None:
            with contextlib.suppress(ProcessLookupError):
                self._transport.terminate()

    def _force(self) -> None:
        if self._transport is not None and not self._has_exited:
            with contextlib.suppress(ProcessLookupError):
                self._transport.kill()

    def _after(self, seconds: float, name: str, act: Callable[[], None]) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()
        self._timers[name] = self._loop.call_later(seconds, act)

    def _fail_ready(self, error: RunnerError) -> None:
        if not self._ready.done():
            self._ready.set_exception(error)
            self._ready.exception()  # seen: nobody has to wait for it

    def _finish_when_over(self) -> None:
        if self._has_exited and not self._open_pipes:
            self._finish()

    def _finish(self) -> None:
        if self.state is WorkerState.GONE:
            return
        self.state = WorkerState.GONE
        for timer in self._timers.values():
            timer.cancel()
        if self._transport is not None:
            self._transport.close()
        self._log.flush()
        ending = self._ending()
        if not self.was_stopped:
            logger.error("%s: its process (%s) %s", self._name, self.pid, ending)
        crashed = EngineCrashed(f"The model's process {ending} while it loaded {self._name}.", model=self._name)
        self.failure = self.failure or crashed
        self._fail_ready(crashed)
        self.ending = ending
        if self.was_stopped:
            message = f"The model's process {ending} in the middle of this answer."
            self.client.end_all(Failed(EngineCrashed.code, message, {"model": self._name}))
        self._gone.set()
        self._on_gone(self)

    def _ending(self) -> str:
        if self._cause is not None:
            return self._cause
        code = None if self._transport is None else self._transport.get_returncode()
        if code is None or code == 0:
            return "ended"
        if code > 0:
            return f"ended with exit code {code}"
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = str(-code)
        hint = " (the system does this when memory runs out)" if name == "SIGKILL" and not self.was_stopped else ""
        return f"was ended by signal {name}{hint}"


class _Pipes(asyncio.SubprocessProtocol):
    """Passes on what the event loop tells of a process."""

    def __init__(self, worker: WorkerProcess) -> None:
        self._worker = worker

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._worker._spawned(cast("asyncio.SubprocessTransport", transport))

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self._worker._received(fd, data)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        self._worker._pipe_closed(fd)

    def process_exited(self) -> None:
        self._worker._exited()
