"""Finds the models of a store in Ollama's layout."""

from __future__ import annotations

from pathlib import Path

from registry.errors import ModelInvalid, RegistryError, Unsupported
from registry.found_models import Findings, FoundFile, FoundModel, Unusable
from registry.gguf_metadata import read_gguf
from registry.manifest import FILE_LAYERS, MAX_MANIFEST_BYTES, MODEL_LAYER, TENSOR_LAYER, Layer, Manifest
from registry.manifests import Manifests
from registry.name import ModelName
from registry.parts import check_weights, join_shards


def is_ollama_store(folder: Path) -> bool:
    return (folder / "manifests").is_dir() and (folder / "blobs").is_dir()


def find_in_ollama_store(root: Path) -> Findings:
    """Every model under its own name; reads manifests and headers. Raises nothing for what is damaged there."""
    models, unusable = [], []
    for name, path in Manifests(root).names():
        try:
            models.append(_read(root, name, path))
        except (RegistryError, OSError) as error:
            reason = error.message if isinstance(error, RegistryError) else f"It cannot be read ({error.strerror})."
            unusable.append(Unusable(path, f"{name.short}: {reason}"))
    return Findings(tuple(models), tuple(unusable))


def _read(root: Path, name: ModelName, path: Path) -> FoundModel:
    if path.stat().st_size > MAX_MANIFEST_BYTES:
        raise ModelInvalid(f"The manifest has more than {MAX_MANIFEST_BYTES} bytes.")
    content = path.read_bytes()
    manifest = Manifest.from_bytes(content)
    if not manifest.of_type(MODEL_LAYER):
        what = "is made of safetensors" if manifest.of_type(TENSOR_LAYER) else "has no weights here"
        raise Unsupported(f"The model {what}, so that it cannot be used.")
    files = tuple(_file(root, layer) for layer in manifest.all_layers)
    weights = [file.metadata for file in files if file.media_type == MODEL_LAYER and file.metadata is not None]
    check_weights(join_shards(weights))
    return FoundModel(name, files, content)


def _file(root: Path, layer: Layer) -> FoundFile:
    path = root / "blobs" / layer.digest.file_name
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise ModelInvalid(f"Its file {layer.digest} is missing.") from None
    if size != layer.size:
        raise ModelInvalid(f"Its file {layer.digest} has {size} bytes; the manifest says {layer.size}.")
    metadata = read_gguf(path) if layer.media_type in FILE_LAYERS else None
    return FoundFile(layer.media_type, path, size, layer.digest, metadata)
