"""A tiny model and the library, loaded once."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.llamacpp.library import Library
from tests.tiny_model import write_tiny_model


@pytest.fixture(scope="session")
def library() -> Library:
    return Library()


@pytest.fixture(autouse=True)
def _listening(library: Library) -> None:
    """What the library says goes to the log that tests look at, whoever listened last."""
    library.listen(library.log)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny.gguf")


@pytest.fixture(scope="session")
def tiny_grid_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images take more cells than positions in it."""
    return write_tiny_model(tmp_path_factory.mktemp("models") / "grid.gguf", sections=(4, 2, 2, 0))
