"""A real daemon on a free port, a real model from the package index, and the official clients."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from filelock import FileLock

from registry.errors import ModelNotFound
from registry.name import ModelName
from registry.store import ModelStore

REPOSITORY = Path(__file__).parents[2]
MODEL = "smollm2:135m"
SLIDING_MODEL = "gemma3:270m"
EMBEDDING_MODEL = "all-minilm:latest"
TIMEOUT = 120
SEEDED = "".join(f'[models."{model}"]\nseed = 1\n' for model in (MODEL, SLIDING_MODEL, EMBEDDING_MODEL))
"""Settings with which what is drawn by chance is the same in each run."""


@dataclass
class Daemon:
    """A running daemon and how to reach it."""

    process: subprocess.Popen[bytes]
    home: Path
    models: Path
    url: str
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = httpx.Client(base_url=self.url, timeout=TIMEOUT)

    @property
    def environment(self) -> dict[str, str]:
        """What a command line that talks to this daemon needs."""
        return daemon_environment(self.home, self.models, self.url.removeprefix("http://"))

    def workers(self) -> list[psutil.Process]:
        return [child for child in psutil.Process(self.process.pid).children(recursive=True) if _is_worker(child)]

    def wait_for_worker(self) -> psutil.Process:
        """The only one, when there is one."""
        found: list[psutil.Process] = []

        def is_alone() -> bool:
            found[:] = self.workers()
            return len(found) == 1

        self._wait_until(is_alone)
        return found[0]

    def loaded(self) -> list[dict[str, Any]]:
        models: list[dict[str, Any]] = self.client.get("/api/ps").json()["models"]
        return models

    def sequences(self) -> int:
        """Sequences that run or wait in any worker, as the workers told last."""
        told = [model["sequences"] for model in self.loaded() if "sequences" in model]
        return sum(sequences["running"] + sequences["waiting"] for sequences in told)

    def wait_until_busy(self) -> None:
        self._wait_until(lambda: self.sequences() > 0)

    def wait_until_idle(self) -> None:
        self._wait_until(lambda: self.sequences() == 0)

    def wait_until_restarted(self, times: int) -> None:
        """Until the only model was loaded again so often, and not more often."""
        self._wait_until(lambda: [model["restarts"] for model in self.loaded()] == [times])

    def _wait_until(self, is_so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + TIMEOUT
        while not is_so():
            assert time.monotonic() < deadline
            time.sleep(0.02)


def _is_worker(process: psutil.Process) -> bool:
    try:
        return "runner.worker" in process.cmdline()
    except psutil.Error:  # it has just ended
        return False


def daemon_environment(home: Path, models: Path, host: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PUNA_")}
    return kept | {"PUNA_HOME": str(home), "PUNA_MODELS": str(models), "PUNA_HOST": host}


@contextmanager
def running_daemon(home: Path, models: Path, host: str = "127.0.0.1:0") -> Iterator[Daemon]:
    """Start one, and see that it and all it started are gone afterwards."""
    config = home / "config.toml"
    if not config.exists():
        config.write_text(SEEDED)
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "runner", "--log-file", str(home / "daemon.log")],
        env=daemon_environment(home, models, host),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        daemon = Daemon(process, home, models, _wait_for_address(process, home))
        try:
            yield daemon
        finally:
            daemon.client.close()
    finally:
        family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        gone, left = psutil.wait_procs(family, timeout=10)
        assert left == [], f"left running: {left}, gone: {gone}"


def _wait_for_address(process: subprocess.Popen[bytes], home: Path) -> str:
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        assert process.poll() is None, (home / "daemon.log").read_text("utf-8")
        for file in home.rglob("daemon.json"):
            told = json.loads(file.read_text("utf-8"))
            url = f"http://127.0.0.1:{told['port']}"
            try:
                if httpx.get(f"{url}/healthz", timeout=5).status_code in (200, 401):
                    return url
            except httpx.TransportError:
                pass
        time.sleep(0.02)
    raise AssertionError("the daemon did not start")


@pytest.fixture(scope="session")
def smollm2_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that holds SmolLM2; treat it as read-only."""
    return _store_with(MODEL, "models", tmp_path_factory)


@pytest.fixture(scope="session")
def sliding_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that holds Gemma 3, a model with a sliding window; treat it as read-only."""
    return _store_with(SLIDING_MODEL, "sliding-models", tmp_path_factory)


@pytest.fixture(scope="session")
def embedding_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that holds MiniLM, an embedding model; treat it as read-only."""
    return _store_with(EMBEDDING_MODEL, "embedding-models", tmp_path_factory)


def _store_with(model: str, name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of this process' own, with the files of the one that is kept in `.run` between runs of the tests."""
    kept = REPOSITORY / ".run" / name
    kept.mkdir(parents=True, exist_ok=True)
    with FileLock(kept.parent / "models.lock"):
        try:
            ModelStore(kept).find(ModelName.parse(model))
        except ModelNotFound:
            _pull(model, kept, tmp_path_factory.mktemp("pull"))
        return _linked(kept, tmp_path_factory.mktemp(name))


def _pull(model: str, store: Path, home: Path) -> None:
    with running_daemon(home, store) as daemon:
        records = daemon.client.post("/api/pull", json={"model": model}).text.splitlines()
    assert json.loads(records[-1]) == {"status": "success"}, records[-1]


@pytest.fixture
def models(smollm2_store: Path, tmp_path: Path) -> Path:
    """A store of the test's own with SmolLM2 in it, its blobs hard links."""
    return _linked(smollm2_store, tmp_path / "models")


def _linked(store: Path, folder: Path) -> Path:
    """Fill a folder with links to a store's files, or with copies where the two lie on different disks."""
    for source in store.rglob("*"):
        target = folder / source.relative_to(store)
        if source.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        elif not source.name.endswith(".lock"):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                target.hardlink_to(source)
            except OSError:
                shutil.copy2(source, target)
    return folder


@pytest.fixture
def daemon(models: Path, tmp_path: Path) -> Iterator[Daemon]:
    home = tmp_path / "home"
    home.mkdir()
    with running_daemon(home, models) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def shared_daemon(smollm2_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for the tests of a module that change nothing in the store."""
    with running_daemon(tmp_path_factory.mktemp("home"), smollm2_store) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def changing_daemon(smollm2_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for the tests of a module that also change the store, each under names of its own."""
    folder = tmp_path_factory.mktemp("changing")
    with running_daemon(folder, _linked(smollm2_store, folder / "models")) as daemon:
        yield daemon
