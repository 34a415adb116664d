"""The daemon's socket: bind it, and when that fails say why and who is there."""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import socket
import sys
from pathlib import Path

import psutil

from runner.runtime_file import read_runtime_file

ASKING_SECONDS = 1.0


class CannotListen(Exception):
    """The address cannot be bound; the message is for the user. `is_in_use`, `is_forbidden` tell two reasons apart."""

    def __init__(self, message: str, *, is_in_use: bool = False, is_forbidden: bool = False) -> None:
        super().__init__(message)
        self.is_in_use = is_in_use
        self.is_forbidden = is_forbidden


def listen(host: str, port: int, state: Path) -> socket.socket:
    """A bound socket; raises CannotListen. Never another port than the one that was asked for."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError):
        raise CannotListen(f"{host!r} is no address of this machine; set --host, PUNA_HOST or [server] host.") from None
    family, kind, protocol, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    listener = socket.socket(family, kind, protocol)
    try:
        if sys.platform == "win32":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise _explained(error, host, port, state) from None
    listener.setblocking(False)
    return listener


def address_text(host: str, port: int) -> str:
    """As it stands in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _explained(error: OSError, host: str, port: int, state: Path) -> CannotListen:
    place = address_text(host, port)
    other = "choose another address with --host, PUNA_HOST or [server] host"
    if error.errno == errno.EADDRINUSE:
        return CannotListen(f"{place} is in use: {_who_is_there(host, port, state)} Or {other}.", is_in_use=True)
    if error.errno == errno.EACCES:
        return CannotListen(f"This user may not listen on {place}; {other}.", is_forbidden=True)
    if error.errno == errno.EADDRNOTAVAIL:
        return CannotListen(f"{host} is no address of this machine; {other}.")
    return CannotListen(f"Listening on {place} failed ({error.strerror}); {other}.")


def _who_is_there(host: str, port: int, state: Path) -> str:
    """One or two sentences on the program that has the port."""
    process = _listening_process(port)
    runtime = read_runtime_file(state)
    if runtime is not None and runtime.port != port:
        runtime = None
    if runtime is None and process is not None and (folder := _state_folder_of(process)) is not None:
        runtime = read_runtime_file(folder)
        if runtime is not None and runtime.pid != process.pid:
            runtime = None
    if runtime is not None:
        return (
            f"a Puna daemon (version {runtime.version}, process {runtime.pid}{_user_of(runtime.pid)}, models in "
            f"{runtime.store}) serves there. Use it as it is, or end it first with a signal (kill {runtime.pid})."
        )
    version = _ask_version(host, port)
    speaks = f", which answers as Ollama {version} does" if version else ""
    if process is None:
        return f"another program{speaks or ' (which one cannot be seen by this user)'} has it. End that one first."
    with contextlib.suppress(psutil.Error):
        return f"{process.name()} (process {process.pid}{_user_of(process.pid)}){speaks} has it. End that one first."
    return "a program that has just ended had it. Try again."


def _listening_process(port: int) -> psutil.Process | None:
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.Error:
        return None  # some systems show this to administrators only
    for connection in connections:
        if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr[1] == port:
            with contextlib.suppress(psutil.Error):
                return psutil.Process(connection.pid) if connection.pid else None
    return None


def _state_folder_of(process: psutil.Process) -> Path | None:
    """Where a Puna daemon with that process's environment would keep its state."""
    from registry.paths import Paths

    try:
        return Paths.from_environment(process.environ()).state
    except (psutil.Error, OSError):
        return None


def _user_of(pid: int) -> str:
    try:
        return f" of user {psutil.Process(pid).username()}"
    except psutil.Error:
        return ""


def _ask_version(host: str, port: int) -> str | None:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    connection = http.client.HTTPConnection(host, port, timeout=ASKING_SECONDS)
    try:
        connection.request("GET", "/api/version")
        version = json.loads(connection.getresponse().read(4096))["version"]
        return version if isinstance(version, str) and len(version) < 40 else None
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return None
    finally:
        connection.close()
