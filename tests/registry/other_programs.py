"""Model folders as Ollama, LM Studio and Hugging Face write them, with real small GGUF files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from tests.registry.gguf_bytes import GgufFile, Tensor, default_pairs, number_pair, string_pair

LARGE = 1 << 20
"""What is larger is shared and not copied."""


def gguf(seed: int = 0, *, size: int = LARGE + 4096) -> bytes:
    """A sound file of some size, different for each seed."""
    file = GgufFile(pairs=[*default_pairs(), number_pair("test.seed", seed)])
    return file.to_bytes().ljust(size, b"\0")


def shards(count: int) -> list[bytes]:
    """The files of one model."""
    files = []
    for number in range(count):
        own = default_pairs() if number == 0 else []
        pairs = [*own, number_pair("split.no", number), number_pair("split.count", count)]
        files.append(GgufFile(pairs=pairs, tensors=[Tensor(f"t{number}.weight")]).to_bytes())
    return files


def projector() -> bytes:
    pairs = [
        string_pair("general.architecture", "clip"),
        string_pair("general.type", "mmproj"),
        number_pair("clip.vision.block_count", 1),
    ]
    return GgufFile(pairs=pairs, tensors=[Tensor("v.weight")]).to_bytes()


def write_ollama_model(root: Path, name: str, weights: bytes, system: str = "Be brief.") -> bytes:
    """Install a model as Ollama does; returns the manifest."""
    blobs = root / "blobs"
    blobs.mkdir(parents=True, exist_ok=True)

    def layer(kind: str, content: bytes) -> dict[str, object]:
        digest = hashlib.sha256(content).hexdigest()
        (blobs / f"sha256-{digest}").write_bytes(content)
        return {"mediaType": f"application/vnd.ollama.image.{kind}", "digest": f"sha256:{digest}", "size": len(content)}

    config = layer("config", json.dumps({"model_format": "gguf", "model_family": "llama"}).encode())
    config["mediaType"] = "application/vnd.docker.container.image.v1+json"
    layers = [layer("model", weights), layer("system", system.encode()), layer("params", b'{"temperature":0.5}')]
    manifest = json.dumps({"schemaVersion": 2, "config": config, "layers": layers}).encode()
    path = root / "manifests" / "registry.ollama.ai" / "library" / name / "latest"
    path.parent.mkdir(parents=True)
    path.write_bytes(manifest)
    return manifest


def write_hub_file(hub: Path, repository: str, name: str, content: bytes, snapshot: str = "a" * 40) -> Path:
    """Put a file into a cache as the hub's client does; returns the link by which it is found."""
    folder = hub / f"models--{repository.replace('/', '--')}"
    blob = folder / "blobs" / hashlib.sha256(content).hexdigest()
    blob.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(content)
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / "main").write_text(snapshot)
    link = folder / "snapshots" / snapshot / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(blob)
    return link
