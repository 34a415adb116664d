"""A machine with a store of its own that pulls from and pushes to registries."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from registry.manifest import (
    CONFIG_TYPE,
    LICENSE_LAYER,
    MODEL_LAYER,
    PARAMS_LAYER,
    TEMPLATE_LAYER,
    Layer,
    Manifest,
    ModelConfig,
)
from registry.name import ModelName
from registry.progress import Progress
from registry.pull import Puller
from registry.pull_options import PullOptions
from registry.push import Pusher
from registry.registries import Registries, RegistryEntry
from registry.sources.machine_key import MachineKey
from registry.sources.oci import OciSource
from registry.sources.registry_connector import RegistryConnector
from registry.store import ModelStore
from tests.registry.gguf_bytes import tiny_gguf

CHUNK_BYTES = 256 * 1024


@dataclass
class Site:
    """`entries` is the registries table, which may change between calls."""

    folder: Path
    entries: dict[str, RegistryEntry] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict)
    idle_seconds: float = 10
    document_seconds: float = 10

    def __post_init__(self) -> None:
        self.store = ModelStore(self.folder / "models")
        home = self.folder / "home"
        home.mkdir(parents=True, exist_ok=True)
        self.home = home
        options = PullOptions(idle_timeout_seconds=self.idle_seconds, keep_free_bytes=0)
        environ = {"NETRC": str(home / "netrc"), **self.environ}
        self.key = MachineKey(home / "key")
        self.connector = RegistryConnector(
            lambda: Registries(dict(self.entries)),
            options,
            environ,
            home,
            self.key,
            document_seconds=self.document_seconds,
        )
        self.source = OciSource(self.connector)
        self.puller = Puller(self.store, [self.source], options, environ)
        self.pusher = Pusher(
            self.store, self.connector, idle_timeout_seconds=self.idle_seconds, chunk_bytes=CHUNK_BYTES
        )

    def allow(
        self,
        host: str,
        *,
        insecure: bool = True,
        mirror: str | None = None,
        login: str | None = None,
        key: bool = False,
    ) -> None:
        """What `puna registry add` does."""
        self.entries[host] = RegistryEntry(host, insecure, mirror, login, key)

    async def pull(self, name: str, *, insecure: bool = False) -> list[Progress]:
        return [step async for step in self.puller.pull(ModelName.parse(name), insecure=insecure)]

    async def push(self, name: str, *, insecure: bool = False) -> list[Progress]:
        return [step async for step in self.pusher.push(ModelName.parse(name), insecure=insecure)]

    def install(self, name: str, *, size: int = 1_000_000, seed: int = 1) -> Manifest:
        """Put a model into the store whose weights have about that size."""
        weights = tiny_gguf() + random.Random(seed).randbytes(size)
        texts = {
            TEMPLATE_LAYER: b"{{ messages[0].content }}",
            PARAMS_LAYER: b'{"temperature":0.5}',
            LICENSE_LAYER: b"be good",
        }
        layers = tuple(self._layer(kind, content) for kind, content in {MODEL_LAYER: weights, **texts}.items())
        config = self._layer(CONFIG_TYPE, ModelConfig(model_format="gguf", model_family="llama").to_bytes())
        manifest = Manifest(config, layers)
        self.store.write_manifest(ModelName.parse(name), manifest)
        return manifest

    def rename(self, name: str, other: str) -> None:
        self.store.copy(ModelName.parse(name), ModelName.parse(other))

    def manifest_bytes(self, name: str) -> bytes:
        return self.store.read_manifest(ModelName.parse(name))

    def blobs(self, name: str) -> dict[str, bytes]:
        """Every file of a model, by digest."""
        layers = self.store.find(ModelName.parse(name)).manifest.all_layers
        return {str(layer.digest): self.store.blob_path(layer.digest).read_bytes() for layer in layers}

    def _layer(self, kind: str, content: bytes) -> Layer:
        blob = self.store.add_blob([content])
        return Layer(kind, blob.digest, blob.size)


def amounts(steps: list[Progress], word: str) -> dict[str, list[int]]:
    """For each file, how many of its bytes were told, in order."""
    told: dict[str, list[int]] = {}
    for step in steps:
        if step.status.startswith(word) and step.digest is not None and step.completed is not None:
            told.setdefault(step.digest, []).append(step.completed)
    return told
