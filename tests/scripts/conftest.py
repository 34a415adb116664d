"""The scripts as modules, which are no package of the project."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(scope="module", autouse=True)
def scripts_on_the_path() -> Iterator[None]:
    sys.path.insert(0, str(SCRIPTS))
    try:
        yield
    finally:
        sys.path.remove(str(SCRIPTS))


def script(name: str) -> Any:
    """A module of theirs, such as `benchmark.goals`."""
    return importlib.import_module(name)


def script_environment() -> dict[str, str]:
    """What a Python needs that imports them."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (SCRIPTS, SCRIPTS.parent)))}
