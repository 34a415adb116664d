"""What exists while a model is made is gone afterwards, whoever dies."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from registry.scratch import Scratch, remove_abandoned

DYING = """
import os, sys
sys.path.insert(0, {root!r})
from pathlib import Path
from registry.scratch import Scratch
Scratch(Path({store!r})).path("half").write_bytes(b"half a model")
os._exit(1)
"""


def test_links_show_the_content_under_other_names(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"content")
    scratch = Scratch(tmp_path / "store")
    folder = scratch.link({"model.safetensors": tmp_path / "blob", "1_Pooling/config.json": tmp_path / "blob"})
    assert (folder / "1_Pooling" / "config.json").read_bytes() == b"content"
    scratch.remove()
    scratch.remove()
    assert (tmp_path / "blob").read_bytes() == b"content"
    assert not (tmp_path / "store" / "scratch").exists()
    assert list((tmp_path / "store" / "locks").iterdir()) == []


def test_what_was_never_used_leaves_no_trace(tmp_path: Path) -> None:
    Scratch(tmp_path / "store").remove()
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("is_started_again", [False, True])
def test_what_a_dead_process_left_goes_with_the_next_look_and_what_is_in_use_stays(
    tmp_path: Path, is_started_again: bool
) -> None:
    store = tmp_path / "store"
    living = Scratch(store)
    living.path("mine").write_bytes(b"x")
    script = DYING.format(root=str(Path(__file__).parents[2]), store=str(store))
    assert subprocess.run([sys.executable, "-c", script], timeout=60, check=False).returncode == 1
    assert len(list((store / "scratch").iterdir())) == 2
    if is_started_again:
        other = Scratch(store)
        other.path("other")
        other.remove()
    else:
        remove_abandoned(store)
    assert [path.name for path in (store / "scratch").rglob("*") if path.is_file()] == ["mine"]
    living.remove()
    assert not (store / "scratch").exists()
