"""What our reader lets through must not end the engine's process: thousands of changed files are tried."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from registry.errors import RegistryError
from registry.gguf_metadata import read_gguf
from registry.parts import check_weights
from tests.gguf_document import Document
from tests.gguf_mutants import mutants
from tests.tiny_families import write_tiny_family
from tests.tiny_model import write_tiny_model
from tests.tiny_recurrent_model import write_tiny_recurrent_model

ROOT = Path(__file__).parents[3]
SAMPLED = int(os.environ.get("PUNA_TEST_MUTANTS_OF_EACH", "16"))
"""One of so many changes is tried with the other families; all of them by hand, now and then, with 1."""


def ends_process(paths: list[Path], errors: Path) -> Path | None:
    """Which of the files ended a process that used all of them; None when it came to its end."""
    environment = {**os.environ, "GGML_NO_BACKTRACE": "1", "PYTHONPATH": str(ROOT)}
    with errors.open("w") as written:
        done = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("load_each.py"))],
            input="".join(f"{path}\n" for path in paths),
            stdout=subprocess.PIPE,
            stderr=written,
            text=True,
            env=environment,
            timeout=240,
            check=False,
        )
    lines = done.stdout.splitlines()
    if done.returncode == 0:
        assert lines.count("end") == len(paths)
        return None
    begun = [line for line in lines if line.startswith("begin ")]
    return Path(begun[-1].removeprefix("begin ")) if begun else paths[0]


@pytest.mark.parametrize("write", [write_tiny_model, write_tiny_recurrent_model])
def test_no_changed_file_ends_the_engine(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    let_through, refusals = try_mutants(tmp_path, write(tmp_path / "sound.gguf"), 1)
    assert let_through > 200
    assert refusals > 100


@pytest.mark.parametrize(("name", "slower"), [("bert", 1), ("gemma3", 4), ("qwen2", 1), ("qwen3", 1)])
def test_no_changed_file_of_another_family_ends_the_engine(tmp_path: Path, name: str, slower: int) -> None:
    every = SAMPLED * slower
    let_through, refusals = try_mutants(tmp_path, write_tiny_family(tmp_path / "sound.gguf", name), every)
    assert let_through > 300 / every
    assert refusals > 300 / every


def try_mutants(folder: Path, sound: Path, every: int) -> tuple[int, int]:
    """Read changed files, and use those that can be read; how many could be, and how many were refused."""
    document = Document.read(sound.read_bytes())
    let_through: dict[Path, str] = {}
    refusals = 0
    for number, (what, content) in enumerate(mutants(document, flips=60)):
        if number % every:
            continue
        path = folder / f"{number}.gguf"
        path.write_bytes(content)
        began = time.thread_time()
        try:
            check_weights(read_gguf(path))
            let_through[path] = what
        except RegistryError as error:
            refusals += 1
            assert len(error.message) > 15, what
            assert error.message[-1] == ".", what
            path.unlink()
        assert time.thread_time() - began < 1, what
    culprit = ends_process([sound, *let_through], folder / "errors")
    if culprit is not None:
        last_words = (folder / "errors").read_text(errors="replace")[-500:]
        pytest.fail(f"{let_through.get(culprit, culprit)}: {last_words}")
    return len(let_through), refusals
