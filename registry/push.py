"""Sends models to registries: the files that are missing there, then the manifest, byte for byte as it is here."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import TYPE_CHECKING

from registry.digest import Digest
from registry.errors import ModelNotFound, SourceError
from registry.manifest import Layer, Manifest
from registry.name import ModelName
from registry.patience import Patience
from registry.progress import Progress
from registry.sources.oci_manifest import check_digest, manifest_type
from registry.sources.registry_connector import RegistryConnector, registry_host, repository_of
from registry.store import ModelStore

if TYPE_CHECKING:
    from registry.sources.registry_client import RegistryClient

CHUNK_BYTES = 16 * 1024 * 1024
_REPORT_SECONDS = 0.1
_MAX_ANSWER_BYTES = 64 * 1024


class Pusher:
    """Pushes models of one store."""

    def __init__(
        self,
        store: ModelStore,
        connector: RegistryConnector,
        *,
        idle_timeout_seconds: float = 120.0,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        self._store = store
        self._connector = connector
        self._idle_timeout = idle_timeout_seconds
        self._chunk = chunk_bytes

    async def push(self, name: ModelName, *, insecure: bool = False) -> AsyncGenerator[Progress]:
        """Have a model at the registry that its name tells, telling each step; the last is `success`.

        The name at the registry shows the model only when all its files are there. Raises ModelNotFound,
        ModelCorrupt, Unauthorized, RegistryForbidden, DigestMismatch, SourceError or SourceUnreachable.
        """
        yield Progress("retrieving manifest")
        content = await asyncio.to_thread(self._read_manifest, name)
        layers = {layer.digest: layer for layer in Manifest.from_bytes(content).all_layers}
        host = registry_host(name)
        registries = await self._connector.registries(host, insecure=insecure)
        origins = await asyncio.to_thread(self._origins, name, set(layers))
        async with self._connector.open(
            host, repository_of(name), "pull,push", registries, also=tuple(sorted(set(origins.values())))
        ) as client:
            for layer in layers.values():
                path = await asyncio.to_thread(self._checked_path, layer)
                async with contextlib.aclosing(self._send(client, layer, path, origins.get(layer.digest))) as steps:
                    async for progress in steps:
                        yield progress
            yield Progress("pushing manifest")
            await _put_manifest(client, name, content)
        yield Progress("success")

    def _read_manifest(self, name: ModelName) -> bytes:
        try:
            return self._store.read_manifest(name)
        except ModelNotFound as error:
            raise ModelNotFound(f"couldn't retrieve manifest: {error.message}", model=name.short) from None

    def _origins(self, name: ModelName, digests: set[Digest]) -> dict[Digest, str]:
        """For blobs, other repositories of the same registry that a model of this store has them in."""
        found: dict[Digest, str] = {}
        for other in self._store.models():
            repository = repository_of(other.name)
            if other.name.host.lower() == name.host.lower() and repository != repository_of(name):
                for layer in other.manifest.all_layers:
                    if layer.digest in digests:
                        found.setdefault(layer.digest, repository)
        return found

    def _checked_path(self, layer: Layer) -> Path:
        """A file that is what the manifest says; nothing else is given to others."""
        self._store.blobs.verify_unchanged(layer.digest, layer.size)
        return self._store.blob_path(layer.digest)

    async def _send(
        self, client: RegistryClient, layer: Layer, path: Path, mount_from: str | None
    ) -> AsyncGenerator[Progress]:
        from registry.sources.blob_upload import BlobUpload

        status, digest = f"pushing {layer.digest.short}", str(layer.digest)
        sent = 0

        def tell(count: int) -> None:
            nonlocal sent
            sent = count

        upload = BlobUpload(
            client,
            layer,
            path,
            tell,
            patience=Patience(self._idle_timeout),
            mount_from=mount_from,
            chunk_bytes=self._chunk,
        )
        task = asyncio.create_task(upload.run())
        try:
            shown = -1
            while not task.done():
                if sent != shown:
                    shown = sent
                    # The last byte counts when the registry says that it has them all.
                    yield Progress(status, digest, layer.size, min(shown, max(0, layer.size - 1)))
                await asyncio.wait((task,), timeout=_REPORT_SECONDS)
            await task
        finally:
            task.cancel()
            await asyncio.wait((task,))
        yield Progress(status, digest, layer.size, layer.size)


async def _put_manifest(client: RegistryClient, name: ModelName, content: bytes) -> None:
    answer, _ = await client.document(
        "PUT", f"manifests/{name.tag}", {"Content-Type": manifest_type(content)}, _MAX_ANSWER_BYTES, content
    )
    if answer.status_code not in (200, 201):
        raise SourceError(
            f"{client.host} does not take the manifest of {name.short} (status {answer.status_code}).",
            http_status=answer.status_code,
        )
    check_digest(content, answer.headers.get("Docker-Content-Digest"))
