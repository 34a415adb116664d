"""Stores that others use too: read-only ones, full disks, locks, and several processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from registry.digest import Digest
from registry.errors import (
    DiskFull,
    StoreReadOnly,
)
from registry.locks import held, try_acquire, writing
from registry.manifest import (
    CONFIG_TYPE,
    Manifest,
)
from registry.name import ModelName
from registry.store import ModelStore
from tests.registry.stores import A, B, layer


def test_a_read_only_store_can_be_used_and_not_changed(as_reader: Path) -> None:
    store = ModelStore(as_reader)
    model = store.find(A)
    model.verify_unchanged()
    assert model.metadata().block_count == 2
    for change in (
        lambda: store.delete(A),
        lambda: store.copy(A, B),
        lambda: store.add_blob([b"new"]),
        lambda: store.write_manifest(B, model.manifest),
        lambda: store.blobs.try_lock(Digest.of(b"new").file_name),
    ):
        with pytest.raises(StoreReadOnly):
            change()
    assert [one.name for one in store.models()] == [A]


def test_a_full_disk_has_a_name() -> None:
    with pytest.raises(DiskFull), writing(Path("/x")):
        raise OSError(28, "No space left on device")
    with pytest.raises(FileNotFoundError), writing(Path("/x")):
        raise FileNotFoundError(2, "gone")


def test_a_file_where_the_store_should_be_has_a_name_too(tmp_path: Path) -> None:
    tmp_path.joinpath("file").write_text("in the way")
    for root in (tmp_path / "file", tmp_path / "file" / "models"):
        with pytest.raises(StoreReadOnly, match="cannot be written"):
            ModelStore(root).add_blob([b"x"])
        with pytest.raises(StoreReadOnly, match="cannot be written"):
            ModelStore(root).delete(A)


def test_room_is_checked_before_a_download(store: ModelStore) -> None:
    store.blobs.check_room(1, 0)
    with pytest.raises(DiskFull) as refused:
        store.blobs.check_room(1 << 60, 1 << 30)
    assert refused.value.facts["needed"] == 1 << 60
    assert refused.value.facts["keep_free"] == 1 << 30


def test_a_lock_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "locks" / "one.lock"
    lock = try_acquire(path)
    assert lock is not None
    assert try_acquire(path) is None
    lock.release()
    with held(path):
        assert try_acquire(path) is None


WRITER = """
import sys
from pathlib import Path
from registry.manifest import CONFIG_TYPE, SYSTEM_LAYER, Layer, Manifest
from registry.name import ModelName
from registry.store import ModelStore

store, mine = ModelStore(Path(sys.argv[1])), sys.argv[2]
def layer(kind, content):
    blob = store.add_blob([content])
    return Layer(kind, blob.digest, blob.size)
print("ready", flush=True)
sys.stdin.readline()
for number in range(24):
    own = ModelName.parse(f"{mine}:{number}")
    manifest = Manifest(layer(CONFIG_TYPE, b"{}"), (layer(SYSTEM_LAYER, f"{mine}{number}".encode()),))
    store.write_manifest(own, manifest)
    store.copy(own, ModelName.parse("shared"))
    if number % 2:
        store.delete(own)
"""


def test_two_processes_write_one_store_without_losing_anything(store: ModelStore) -> None:
    keep = layer(store, CONFIG_TYPE, b"{}")
    store.write_manifest(ModelName.parse("keeper"), Manifest(keep, ()))
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(store.root), mine],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
            text=True,
        )
        for mine in ("left", "right")
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate(timeout=60)
        assert writer.returncode == 0
    names = {model.name.short for model in store.models()}
    kept = {f"{mine}:{number}" for mine in ("left", "right") for number in range(0, 24, 2)}
    assert names == kept | {"shared:latest", "keeper:latest"}
    for model in store.models():
        for one in model.manifest.all_layers:
            assert Digest.of(store.read_blob(one.digest)) == one.digest
    needed = {str(one.digest.file_name) for model in store.models() for one in model.manifest.all_layers}
    assert {path.name for path in (store.root / "blobs").iterdir()} == needed
