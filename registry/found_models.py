"""Models that other programs keep on this machine, as they were found there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from registry.digest import Digest
from registry.gguf_metadata import GgufMetadata
from registry.name import ModelName


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file of a model. Its header has been read; its content has not."""

    media_type: str
    """As in `registry.manifest`."""
    path: Path
    size: int
    digest: Digest | None = None
    """What its name promises; None when that says nothing."""
    metadata: GgufMetadata | None = None
    """None for files that are no GGUF."""


@dataclass(frozen=True, slots=True)
class FoundModel:
    """A model that can be adopted."""

    name: ModelName
    files: tuple[FoundFile, ...]
    """In the order of the manifest; without a manifest, the weights first."""
    manifest: bytes | None = None
    """As the other program has it; None when it has none."""

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def origin(self) -> Path:
        """The first file of the weights."""
        return self.files[0].path


@dataclass(frozen=True, slots=True)
class Unusable:
    """Something that looks like a model and is not adopted."""

    path: Path
    reason: str
    """A sentence."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What there is in one place."""

    models: tuple[FoundModel, ...] = ()
    unusable: tuple[Unusable, ...] = ()

    def __add__(self, other: Findings) -> Findings:
        return Findings(self.models + other.models, self.unusable + other.unusable)
