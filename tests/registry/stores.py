"""Small models put into a store, and what lies in it."""

from __future__ import annotations

from registry.manifest import CONFIG_TYPE, Layer, Manifest, ModelConfig
from registry.name import ModelName
from registry.store import ModelStore

A, B = ModelName.parse("a"), ModelName.parse("b:1")


def layer(store: ModelStore, media_type: str, content: bytes) -> Layer:
    blob = store.add_blob([content])
    return Layer(media_type, blob.digest, blob.size)


def install(store: ModelStore, name: ModelName, *contents: tuple[str, bytes]) -> Manifest:
    config = layer(store, CONFIG_TYPE, ModelConfig("gguf", "llama", ("llama",), "256", "F32", 128, 32).to_bytes())
    manifest = Manifest(config, tuple(layer(store, media_type, content) for media_type, content in contents))
    store.write_manifest(name, manifest)
    return manifest


def files(store: ModelStore) -> set[str]:
    return {
        str(path.relative_to(store.root))
        for path in store.root.rglob("*")
        if path.is_file() and path.suffix != ".lock" and "verified" not in path.parts
    }
