"""Constraints are tried in a process of their own before they are compiled where answers are computed.

The compiler bounds most of what it does, and not all: a few intersected expressions can keep it busy for hours.
There is no way to stop it but to end its process.
"""

from __future__ import annotations

import contextlib
import struct
import subprocess
import sys
import threading
import weakref

import msgspec

from runner.errors import RunnerError
from runner.llamacpp.constraint_grammar import refusal
from runner.sampling import Constraint

TRIAL_SECONDS = 1.2
"""With the start of a process before, a refusal comes within two seconds."""
START_SECONDS = 30.0
IDLE_SECONDS = 60.0
LENGTH = struct.Struct("<I")
READY = b"ready"
COMMAND = (sys.executable, "-P", "-m", "runner.llamacpp.constraint_trial")


class ConstraintTrials:
    """Owns the processes: one is started when it is needed and none is idle, and ended when it was idle for a while.

    May be called from any thread.
    """

    def __init__(
        self, command: tuple[str, ...] = COMMAND, seconds: float = TRIAL_SECONDS, idle_seconds: float = IDLE_SECONDS
    ) -> None:
        self._command = command
        self._seconds = seconds
        self._idle = _Idle(idle_seconds)
        # For whoever forgets to close.
        weakref.finalize(self, self._idle.end_all)

    def try_out(self, constraint: Constraint) -> None:
        """Return when the constraint has been compiled elsewhere, quickly enough. Blocks; raises ConstraintInvalid."""
        payload = msgspec.msgpack.encode(constraint)
        problem = None
        # The system may have ended one that was idle.
        while problem is None and (process := self._idle.take()) is not None:
            problem = self._ask(process, constraint, payload)
        if problem is None:
            problem = self._ask(self._start(), constraint, payload)
        if problem is None:
            raise refusal(constraint, "the compiler failed")
        if problem:
            raise refusal(constraint, problem.decode())

    def close(self) -> None:
        """End those that are idle."""
        self._idle.end_all()

    def _ask(self, process: subprocess.Popen[bytes], constraint: Constraint, payload: bytes) -> bytes | None:
        """What is wrong with a constraint; empty for nothing, None when the process has ended."""
        limit = _Limit(process, self._seconds)
        problem = _reply(process) if _send(process, payload) else None
        if limit.is_reached():
            _end(process)
            raise refusal(constraint, f"it takes longer than {self._seconds:g} seconds to compile")
        if problem is None:
            _end(process)
        else:
            self._idle.put(process)
        return problem

    def _start(self) -> subprocess.Popen[bytes]:
        try:
            process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # what the compiler says when it fails has the client's words in it
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
        except OSError as error:
            raise RunnerError(f"Constraints cannot be checked here: {error.strerror}.") from None
        limit = _Limit(process, START_SECONDS)
        is_ready = _reply(process) == READY
        if limit.is_reached() or not is_ready:
            _end(process)
            raise RunnerError("Constraints cannot be checked here: the process that does it does not start.")
        return process


class _Idle:
    """Processes that wait for work, each not for long."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._waiting: dict[subprocess.Popen[bytes], threading.Timer] = {}

    def put(self, process: subprocess.Popen[bytes]) -> None:
        timer = threading.Timer(self._seconds, self._end_one, (process,))
        timer.daemon = True
        with self._lock:
            self._waiting[process] = timer
        timer.start()

    def take(self) -> subprocess.Popen[bytes] | None:
        """The one that has worked last; None when there is none."""
        with self._lock:
            if not self._waiting:
                return None
            process, timer = self._waiting.popitem()
        timer.cancel()
        return process

    def end_all(self) -> None:
        while (process := self.take()) is not None:
            _end(process)

    def _end_one(self, process: subprocess.Popen[bytes]) -> None:
        with self._lock:
            is_waiting = self._waiting.pop(process, None) is not None
        if is_waiting:
            _end(process)


class _Limit:
    """Ends a process when its time is over."""

    def __init__(self, process: subprocess.Popen[bytes], seconds: float) -> None:
        self._process = process
        self._is_over = False
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True
        self._timer.start()

    def is_reached(self) -> bool:
        """Whether the process was ended; if not, it is not any more."""
        self._timer.cancel()
        self._timer.join()
        return self._is_over

    def _end(self) -> None:
        self._is_over = True
        self._process.kill()


def _send(process: subprocess.Popen[bytes], payload: bytes) -> bool:
    assert process.stdin is not None
    try:
        process.stdin.write(LENGTH.pack(len(payload)) + payload)
        process.stdin.flush()
    except OSError:
        return False
    return True


def _reply(process: subprocess.Popen[bytes]) -> bytes | None:
    """What it tells; None when it has ended."""
    assert process.stdout is not None
    header = process.stdout.read(LENGTH.size)
    if len(header) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(header)
    reply = process.stdout.read(length)
    return reply if len(reply) == length else None


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):  # what was not written yet is for nobody
                stream.close()
