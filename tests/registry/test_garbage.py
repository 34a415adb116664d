"""What no model needs goes; what one may need stays."""

from __future__ import annotations

import os

import pytest

from registry.digest import Digest
from registry.errors import (
    ModelNotFound,
)
from registry.manifest import (
    CONFIG_TYPE,
    MODEL_LAYER,
    SYSTEM_LAYER,
    Manifest,
)
from registry.store import ModelStore
from tests.registry.gguf_bytes import tiny_gguf
from tests.registry.stores import A, B, files, install, layer


def test_deleting_removes_only_what_nobody_else_needs(store: ModelStore) -> None:
    install(store, A, (MODEL_LAYER, tiny_gguf()), (SYSTEM_LAYER, b"only a"))
    install(store, B, (MODEL_LAYER, tiny_gguf()), (SYSTEM_LAYER, b"only b"))
    store.delete(A)
    assert not store.has_blob(Digest.of(b"only a"))
    assert not (store.root / "verified" / Digest.of(b"only a").file_name).exists()
    assert store.has_blob(Digest.of(b"only b"))
    assert store.has_blob(Digest.of(tiny_gguf()))
    store.delete(B)
    assert files(store) == set()
    assert list((store.root / "manifests").iterdir()) == []
    with pytest.raises(ModelNotFound):
        store.delete(B)


def test_no_blob_is_removed_while_a_manifest_cannot_be_read(store: ModelStore) -> None:
    install(store, A, (MODEL_LAYER, tiny_gguf()))
    broken = store.root / "manifests/registry.ollama.ai/library/broken/latest"
    broken.parent.mkdir()
    broken.write_text("{")
    store.delete(A)
    assert store.has_blob(Digest.of(tiny_gguf()))


def test_replacing_a_model_tells_what_it_removed(store: ModelStore) -> None:
    install(store, A, (MODEL_LAYER, tiny_gguf()), (SYSTEM_LAYER, b"first"))
    model = layer(store, MODEL_LAYER, tiny_gguf())
    config = layer(store, CONFIG_TYPE, b"{}")
    removed = store.write_manifest(A, Manifest(config, (model,)))
    assert Digest.of(b"first") in removed
    assert model.digest not in removed
    assert store.find(A).system is None


def test_pruning_takes_old_orphans_and_leaves_young_ones(store: ModelStore) -> None:
    install(store, A, (MODEL_LAYER, tiny_gguf()))
    store.add_blob([b"orphan"])
    old = store.root / "partials" / "left-behind"
    old.write_bytes(b"x")
    assert store.prune() == []
    os.utime(old, (1, 1))
    os.utime(store.blob_path(Digest.of(b"orphan")), (1, 1))
    os.utime(store.blob_path(Digest.of(tiny_gguf())), (1, 1))
    assert store.prune() == [Digest.of(b"orphan")]
    assert not old.exists()
    assert store.find(A).metadata().block_count == 2
