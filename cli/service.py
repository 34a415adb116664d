"""The background daemon: started when it is needed, and stopped."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from cli.address import daemon_address
from cli.client import DaemonClient
from cli.errors import DISK_FULL, FAILED, NOT_ALLOWED, CliError, DaemonFailedToStart
from cli.output import note

START_SECONDS = 60.0
STOP_SECONDS = 60.0
_POLL_SECONDS = 0.05
_SHOWN_LOG_LINES = 12
_MODULE = ["-P", "-m", "runner"]
_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_PATHS = ("PUNA_HOME", "PUNA_MODELS", "PUNA_PULL_CA_BUNDLE")


def start_daemon(client: DaemonClient) -> None:
    """Start a daemon in the background and return when it answers; two callers at once start one.

    Raises DaemonFailedToStart with the daemon's exit code and the end of its log.
    """
    files = DaemonFiles()
    with _own_files(), _start_lock(files.start_lock):
        if client.is_healthy():
            return
        files.log.parent.mkdir(parents=True, exist_ok=True)
        note(f"Starting the Puna daemon at {client.address.url} (log: {files.log})")
        process = _spawn(files)
        deadline = time.monotonic() + START_SECONDS
        while not client.is_healthy():
            exit_code = process.poll()
            if exit_code is not None and not client.is_healthy():
                raise _failed_start(files, exit_code)
            if time.monotonic() > deadline:
                raise DaemonFailedToStart(
                    f"The daemon was started (process {process.pid}) and does not answer at {client.address.url}. "
                    f"Its log is {files.log}."
                )
            time.sleep(_POLL_SECONDS)
    # It lives on without us: Python would warn that nobody waits for it.
    process.returncode = 0


def stop_daemon() -> bool:
    """End this machine's daemon at the address in use and return when it is gone; False when none runs.

    Running answers may end first, for as long as the daemon's own setting allows.
    """
    address = daemon_address()
    pid = (DaemonFiles().running_at(address.port) or _listening_at(address.port)) if address.is_local else None
    if pid is None:
        if not DaemonClient(address).is_healthy():
            return False
        raise CliError(
            f"The daemon at {address.url} was not started from here. "
            "End it where it was started: with Ctrl-C, or with the tool that runs it."
        )
    import psutil

    try:
        process = psutil.Process(pid)
        # On Windows this ends it at once; its workers follow, because their pipes close.
        process.terminate()
        try:
            process.wait(2.0)
        except psutil.TimeoutExpired:
            note("Waiting for the daemon to end.")
            process.wait(STOP_SECONDS)
    except psutil.NoSuchProcess:
        return False
    except psutil.TimeoutExpired:
        raise CliError(f"The daemon (process {pid}) was told to stop and still runs; its log tells why.") from None
    except psutil.AccessDenied:
        raise CliError(f"The daemon (process {pid}) belongs to another user.", NOT_ALLOWED) from None
    return True


class DaemonFiles:
    """The files by which commands and the daemon of one home folder know of each other."""

    def __init__(self) -> None:
        from registry.paths import Paths

        paths = Paths.from_environment(os.environ)
        self.state = paths.state
        self.runtime = paths.state / "daemon.json"
        """Written by the daemon while it runs."""
        self.start_lock = paths.state / "daemon-start.lock"
        self.log = paths.logs / "daemon.log"
        self.output = paths.logs / "daemon-output.log"
        """What the latest daemon wrote before it had a log, or while it died."""

    def running_at(self, port: int) -> int | None:
        """The process id of the daemon that listens there, if the file tells of one that is alive."""
        import psutil

        try:
            told = json.loads(self.runtime.read_text(encoding="utf-8"))
            pid, told_port = int(told["pid"]), int(told["port"])
            started_at = datetime.fromisoformat(told["started_at"]).timestamp()
            # A process id alone may belong to another program by now.
            is_same = psutil.Process(pid).create_time() <= started_at + 1
        except (OSError, ValueError, KeyError, TypeError, psutil.Error):
            return None
        return pid if is_same and told_port == port else None


def _listening_at(port: int) -> int | None:
    """The process id of a background daemon that listens there without being in the file, as a second one of a home."""
    import psutil

    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.Error:
        return None  # Some systems show this to administrators only.
    for connection in connections:
        if connection.status == psutil.CONN_LISTEN and connection.pid and connection.laddr[1:2] == (port,):
            try:
                is_daemon = psutil.Process(connection.pid).cmdline()[1:4] == _MODULE
            except psutil.Error:
                return None
            return connection.pid if is_daemon else None
    return None


@contextmanager
def _own_files() -> Iterator[None]:
    """Turn the failures of a file system into sentences."""
    try:
        yield
    except OSError as error:
        code = DISK_FULL if error.errno in _FULL else NOT_ALLOWED if error.errno in _FORBIDDEN else FAILED
        place = f"{error.filename}: " if error.filename else ""
        raise CliError(f"{place}{error.strerror}. PUNA_HOME puts Puna's files elsewhere.", code) from None


@contextmanager
def _start_lock(path: Path) -> Iterator[None]:
    import filelock

    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(path, timeout=START_SECONDS + 5):
            yield
    except filelock.Timeout:
        raise DaemonFailedToStart("Another command has been starting the daemon for too long. Try again.") from None


def _spawn(files: DaemonFiles) -> subprocess.Popen[bytes]:
    # -P: a folder named `runner` where the user happens to be must not be taken for ours.
    command = [sys.executable, *_MODULE, "--log-file", str(files.log)]
    # It does not stay in the user's folder, which may be removed; so what was relative to it must not be.
    given = {name: os.environ[name] for name in _PATHS if os.environ.get(name)}
    absolute = {name: str(Path(text).expanduser().absolute()) for name, text in given.items()}
    with files.output.open("wb") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=files.state,
            env={**os.environ, **absolute},
            creationflags=_detached(),
            start_new_session=True,
        )


def _detached() -> int:
    if sys.platform == "win32":
        return subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP
    return 0


def _failed_start(files: DaemonFiles, exit_code: int) -> DaemonFailedToStart:
    lines = last_lines(files.output) or last_lines(files.log)
    message = f"The daemon ended while it started (exit code {exit_code}); its log is {files.log}."
    if any(line.startswith("Traceback") for line in lines):
        lines = lines[-1:]
    if not lines and exit_code == DISK_FULL:
        message += " The disk is full."
    if lines:
        message += " It said:\n" + "\n".join(f"  {line}" for line in lines)
    return DaemonFailedToStart(message, exit_code if exit_code > 0 else None)


def last_lines(path: Path) -> list[str]:
    """The end of a text file that may be long, absent or not quite text."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 16384))
            return file.read().decode("utf-8", "replace").splitlines()[-_SHOWN_LOG_LINES:]
    except OSError:
        return []
