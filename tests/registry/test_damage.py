"""Damage in the store: found when it matters, remembered, and gone when the file is replaced."""

from __future__ import annotations

import os

import pytest

from registry.errors import (
    ModelCorrupt,
)
from registry.manifest import (
    MODEL_LAYER,
)
from registry.store import ModelStore
from tests.registry.gguf_bytes import tiny_gguf
from tests.registry.stores import A, install


def test_damage_is_found_when_time_or_size_differ(store: ModelStore) -> None:
    install(store, A, (MODEL_LAYER, tiny_gguf()))
    model = store.find(A)
    model.verify_unchanged()
    path = model.model_path
    os.utime(path, (1, 1))
    model.verify_unchanged()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ModelCorrupt, match="damaged"):
        model.verify_unchanged()
    path.write_bytes(bytes(content[:-1]))
    with pytest.raises(ModelCorrupt, match="bytes"):
        model.verify_unchanged()
    path.unlink()
    with pytest.raises(ModelCorrupt, match="missing"):
        model.verify_unchanged()
    with pytest.raises(ModelCorrupt, match="missing"):
        model.metadata()


def test_damage_that_was_found_is_remembered_until_the_file_is_replaced(store: ModelStore) -> None:
    install(store, A, (MODEL_LAYER, tiny_gguf()))
    model = store.find(A)
    digest, path = model.model_digest, model.model_path
    assert not model.is_damaged and store.has_blob(digest)
    path.write_bytes(bytes([*tiny_gguf()[:-1], tiny_gguf()[-1] ^ 1]))
    assert not model.is_damaged, "nobody has looked yet"
    with pytest.raises(ModelCorrupt):
        model.verify_unchanged()
    for where in (store, ModelStore(store.root)):
        assert where.find(A).is_damaged and not where.has_blob(digest)
        with pytest.raises(ModelCorrupt, match="damaged"):
            where.find(A).verify_unchanged()
    store.add_blob([tiny_gguf()], digest)
    for where in (store, ModelStore(store.root)):
        assert not where.find(A).is_damaged and where.has_blob(digest)
        where.find(A).verify_unchanged()


def test_a_cut_off_file_is_damage_and_not_a_wrong_header(store: ModelStore) -> None:
    install(store, A, (MODEL_LAYER, tiny_gguf()))
    model = store.find(A)
    model.model_path.write_bytes(tiny_gguf()[:100])
    assert model.is_damaged and not store.has_blob(model.model_digest)
    with pytest.raises(ModelCorrupt, match="100 bytes"):
        model.metadata()
    model.model_path.unlink()
    assert model.is_damaged


def test_an_unchanged_file_is_not_hashed_again(store: ModelStore) -> None:
    """The record counts: content changed behind an unchanged size and time goes unseen."""
    install(store, A, (MODEL_LAYER, tiny_gguf()))
    path = store.find(A).model_path
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    ModelStore(store.root).find(A).verify_unchanged()
    (store.root / "verified" / path.name).unlink()
    with pytest.raises(ModelCorrupt):
        ModelStore(store.root).find(A).verify_unchanged()
