"""The runtime file: where the running daemon of a state folder can be found."""

from __future__ import annotations

import contextlib
from datetime import datetime
from pathlib import Path

import msgspec
import psutil


class RuntimeFile(msgspec.Struct, frozen=True):
    """What `state/daemon.json` holds while a daemon runs."""

    pid: int
    host: str
    port: int
    version: str
    started_at: datetime
    store: str


def runtime_path(state: Path) -> Path:
    return state / "daemon.json"


def write_runtime_file(state: Path, content: RuntimeFile) -> None:
    """Replace the file in one step, so that nobody reads half of it."""
    state.mkdir(parents=True, exist_ok=True)
    partial = state / f"daemon.json.{content.pid}"
    partial.write_bytes(msgspec.json.encode(content) + b"\n")
    partial.replace(runtime_path(state))


def read_runtime_file(state: Path) -> RuntimeFile | None:
    """What a daemon wrote that is still alive; None when there is none, or nothing readable."""
    try:
        content = msgspec.json.decode(runtime_path(state).read_bytes(), type=RuntimeFile)
    except (OSError, msgspec.DecodeError):
        return None
    try:
        began = psutil.Process(content.pid).create_time()
    except psutil.Error:
        return None
    # A process id alone may belong to another program by now.
    return content if began <= content.started_at.timestamp() + 1 else None


def remove_runtime_file(state: Path, pid: int) -> None:
    """Take the file away if it is still that of process `pid`."""
    content = read_runtime_file(state)
    if content is not None and content.pid == pid:
        with contextlib.suppress(OSError):
            runtime_path(state).unlink()
