"""A store that downloads one file from a server of the test's own."""

from __future__ import annotations

import functools
import random
from dataclasses import dataclass, field
from pathlib import Path

from registry.digest import Digest
from registry.manifest import MODEL_LAYER
from registry.name import ModelName
from registry.progress import Notice, Progress
from registry.pull import Puller
from registry.pull_options import PullOptions
from registry.sources.resolved import HttpFile, Place, ResolvedFile, ResolvedModel
from registry.store import ModelStore
from tests.registry.file_server import FileServer
from tests.registry.gguf_bytes import tiny_gguf

NAME = ModelName.parse("host.test/some/model:1")


@functools.cache
def model_bytes(size: int, seed: int = 1) -> bytes:
    """A sound GGUF file of about that size, different for each seed."""
    return tiny_gguf() + random.Random(seed).randbytes(size)


@dataclass
class FixedSource:
    """Resolves every name to the same files."""

    files: tuple[ResolvedFile, ...]
    manifest: bytes | None = None
    resolved: list[ModelName] = field(default_factory=list)

    def handles(self, name: ModelName) -> bool:
        return True

    async def resolve(self, name: ModelName, notice: Notice, *, insecure: bool = False) -> ResolvedModel:
        self.resolved.append(name)
        return ResolvedModel(self.files, self.manifest)


@dataclass
class Received:
    """How many bytes of files connections have given to this process, whatever else was sent and lost on the way."""

    total: int = 0


@dataclass
class Rig:
    """One model of one file."""

    folder: Path
    server: FileServer
    content: bytes
    options: PullOptions = field(
        default_factory=lambda: PullOptions(idle_timeout_seconds=20, keep_free_bytes=0, piece_bytes=128 << 10)
    )
    is_digest_known: bool = True
    is_size_known: bool = True
    places: tuple[Place, ...] | None = None
    environ: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store = ModelStore(self.folder / "models")
        self.server.files["/model"] = self.content

    @property
    def file(self) -> ResolvedFile:
        places = self.places or (HttpFile(f"{self.server.url}/model"),)
        digest = Digest.of(self.content) if self.is_digest_known else None
        return ResolvedFile(MODEL_LAYER, places, digest, len(self.content) if self.is_size_known else None, "model")

    def puller(self) -> Puller:
        return Puller(self.store, [FixedSource((self.file,))], self.options, self.environ)

    async def pull(self, puller: Puller | None = None) -> list[Progress]:
        """Every step; what is shown never goes back."""
        steps = [step async for step in (puller or self.puller()).pull(NAME)]
        of_file = [step.completed for step in steps if step.completed is not None]
        assert of_file == sorted(of_file)
        return steps

    def check_installed(self) -> None:
        assert self.store.find(NAME).model_path.read_bytes() == self.content
        assert list(self.store.blobs.partials.all()) == []
        assert not any((self.store.root / "partials").iterdir())

    def kept(self) -> int:
        """Bytes that the next download can go on with."""
        return sum(status.completed for status in self.store.blobs.partials.all())

    @property
    def blobs(self) -> list[Path]:
        folder = self.store.root / "blobs"
        return sorted(folder.iterdir()) if folder.exists() else []
