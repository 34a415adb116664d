"""Stores layered underneath: their models are used, and nothing in them is ever changed."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest

from registry.create import create_model
from registry.errors import ModelCorrupt, ModelNotFound, StoreReadOnly
from registry.manifest import CONFIG_TYPE, MODEL_LAYER, Layer, Manifest, ModelConfig
from registry.name import ModelName
from registry.recipe import Recipe
from registry.store import ModelStore
from tests.registry.other_programs import gguf, write_ollama_model

LOWER = ModelName.parse("lower")


def snapshot(root: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(root)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def below(tmp_path: Path) -> Path:
    """A store of Ollama's with one model."""
    write_ollama_model(tmp_path / "below", "lower", gguf(1))
    return tmp_path / "below"


@pytest.fixture
def store(tmp_path: Path, below: Path) -> ModelStore:
    return ModelStore(tmp_path / "own", [below])


def install(store: ModelStore, name: ModelName, content: bytes) -> None:
    config = store.add_blob([ModelConfig("gguf", "llama", ("llama",), "256", "F32", 128, 32).to_bytes()])
    weights = store.add_blob([content])
    layers = (Layer(MODEL_LAYER, weights.digest, weights.size),)
    store.write_manifest(name, Manifest(Layer(CONFIG_TYPE, config.digest, config.size), layers))


def test_a_model_of_a_layer_is_listed_found_verified_and_read(store: ModelStore, below: Path) -> None:
    before = snapshot(below)
    assert [model.name.short for model in store.models()] == ["lower:latest"]
    model = store.find(ModelName.parse("LOWER"))
    model.verify_unchanged()
    assert not model.is_own
    assert not model.is_damaged
    assert model.model_path.is_relative_to(below)
    assert model.metadata().architecture == "llama"
    assert model.system == "Be brief."
    assert snapshot(below) == before


def test_own_models_come_first_and_uncover_what_they_hid(store: ModelStore, below: Path) -> None:
    before = snapshot(below)
    install(store, ModelName.parse("Lower"), gguf(2))
    (model,) = store.models()
    assert model.is_own
    assert model.model_path.read_bytes() == gguf(2)
    store.delete(LOWER)
    assert store.find(LOWER).model_path.read_bytes() == gguf(1)
    assert snapshot(below) == before


def test_what_belongs_to_a_layer_is_not_removed(store: ModelStore, below: Path) -> None:
    before = snapshot(below)
    with pytest.raises(StoreReadOnly, match="lies under yours and is only read"):
        store.delete(LOWER)
    with pytest.raises(ModelNotFound):
        store.delete(ModelName.parse("nothing"))
    assert store.prune(0) == []
    assert snapshot(below) == before


async def test_a_model_made_of_one_of_a_layer_does_not_copy_its_weights(store: ModelStore, below: Path) -> None:
    before = snapshot(below)
    async for _ in create_model(store, Recipe(ModelName.parse("mine"), from_model=LOWER, system="Be long.")):
        pass
    store.copy(LOWER, ModelName.parse("second"))
    for name in ("mine", "second"):
        model = store.find(ModelName.parse(name))
        assert model.is_own
        assert model.model_path.is_relative_to(below)
        model.verify_unchanged()
    assert sum(path.stat().st_size for path in (store.root / "blobs").iterdir()) < 1000
    store.delete(ModelName.parse("mine"))
    store.delete(ModelName.parse("second"))
    assert snapshot(below) == before


def test_what_a_layer_has_lost_comes_back_into_the_own_store(store: ModelStore, below: Path) -> None:
    store.copy(LOWER, ModelName.parse("mine"))
    weights = store.find(LOWER).model_path
    weights.write_bytes(b"cut")
    with pytest.raises(ModelCorrupt):
        store.find(ModelName.parse("mine")).verify_unchanged()
    store.add_blob([gguf(1)])
    store.find(ModelName.parse("mine")).verify_unchanged()
    assert weights.read_bytes() == b"cut"


def test_a_layer_may_have_layers_models_in_common_and_be_missing(tmp_path: Path, below: Path) -> None:
    write_ollama_model(tmp_path / "middle", "lower", gguf(3))
    store = ModelStore(tmp_path / "own", [tmp_path / "unplugged", tmp_path / "middle", below])
    (model,) = store.models()
    assert model.model_path.read_bytes() == gguf(3)


def test_a_layer_that_may_only_be_read_is_used(as_reader: Path) -> None:
    # Nothing at all can be written by this process, the own store included.
    store = ModelStore(as_reader / "own", [as_reader])
    (model,) = store.models()
    model.verify_unchanged()
    assert model.metadata().block_count == 2
    with pytest.raises(StoreReadOnly, match="lies under yours"):
        store.delete(model.name)
    with pytest.raises(StoreReadOnly):
        store.copy(model.name, LOWER)


def test_what_was_verified_in_a_layer_is_not_hashed_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lower = ModelStore(tmp_path / "puna")
    install(lower, LOWER, gguf(1))
    caplog.set_level(logging.INFO)
    ModelStore(tmp_path / "own", [lower.root]).find(LOWER).verify_unchanged()
    assert "Verifying" not in caplog.text


def test_a_store_of_five_hundred_models_is_quick_to_list(tmp_path: Path, below: Path) -> None:
    store = ModelStore(tmp_path / "own", [below])
    install(store, ModelName.parse("m0"), gguf(1))
    manifest = store.find(ModelName.parse("m0")).manifest.to_bytes()
    for number in range(500):
        path = store.root / "manifests" / "registry.ollama.ai" / "library" / f"m{number}" / "latest"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(manifest)
    began = time.thread_time()
    models = store.models()
    assert len(models) == 501
    assert not any(model.is_damaged for model in models)
    assert all(model.details()["family"] == "llama" for model in models)
    assert time.thread_time() - began < 1.0
    began = time.thread_time()
    for number in range(0, 500, 10):
        store.find(ModelName.parse(f"M{number}"))
    assert time.thread_time() - began < 3.0
