"""Models of OCI registries: the Ollama registry's protocol, and any other registry that speaks `/v2/`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.digest import Digest
from registry.errors import ModelInvalid, ModelNotFound, RegistryForbidden, SourceError, Unauthorized
from registry.manifest import MAX_MANIFEST_BYTES, Layer
from registry.name import ModelName
from registry.progress import Notice
from registry.registries import Registries
from registry.sources.oci_manifest import ACCEPT, RemoteManifest, check_digest, read_manifest
from registry.sources.registry_connector import RegistryConnector, registry_host, repository_of
from registry.sources.resolved import HttpFile, ResolvedFile, ResolvedModel

if TYPE_CHECKING:
    from registry.sources.registry_client import RegistryClient

_MAX_INDEX_DEPTH = 2


class OciSource:
    """Finds models in registries; every name may be one's, so other sources are asked before."""

    def __init__(self, connector: RegistryConnector) -> None:
        self._connector = connector

    def handles(self, name: ModelName) -> bool:
        return True

    async def resolve(self, name: ModelName, notice: Notice, *, insecure: bool = False) -> ResolvedModel:
        """Read the manifest of a name, from its registry's mirror when one is configured.

        Raises ModelNotFound, ModelInvalid, Unsupported, Unauthorized, RegistryForbidden, DigestMismatch, SourceError
        or SourceUnreachable.
        """
        host = registry_host(name)
        registries = await self._connector.registries(host, insecure=insecure)
        entry = registries.find(host)
        mirror = entry.mirror if entry is not None else None
        if mirror is None:
            return await self._resolve_at(host, name, registries)
        try:
            found = await self._resolve_at(mirror, name, registries)
        except (SourceError, ModelNotFound, ModelInvalid, Unauthorized, RegistryForbidden) as error:
            notice(f"the mirror {mirror} does not help: {error.message} Asking {host}.")
            return await self._resolve_at(host, name, registries)
        return await self._with_origin(found, host, name, registries)

    async def _resolve_at(self, host: str, name: ModelName, registries: Registries) -> ResolvedModel:
        async with self._connector.open(host, repository_of(name), "pull", registries) as client:
            remote = await fetch_manifest(client, name)
            files = tuple(_file(layer, client) for layer in remote.blobs)
        return ResolvedModel(files, remote.content)

    async def _with_origin(
        self, found: ResolvedModel, host: str, name: ModelName, registries: Registries
    ) -> ResolvedModel:
        """The files of a mirror, each with the registry itself as a second place, if that can be reached."""
        try:
            async with self._connector.open(host, repository_of(name), "pull", registries) as client:
                files = tuple(
                    ResolvedFile(
                        file.media_type, (*file.places, _place(file.digest, client)), file.digest, file.size, file.title
                    )
                    for file in found.files
                    if file.digest is not None
                )
        except SourceError:
            return found
        return ResolvedModel(files, found.manifest)


async def fetch_manifest(client: RegistryClient, name: ModelName) -> RemoteManifest:
    """The manifest of a name, by way of an index when there is one. Raises as `OciSource.resolve`."""
    reference = name.tag
    for _ in range(_MAX_INDEX_DEPTH):
        answer, content = await client.document("GET", f"manifests/{reference}", {"Accept": ACCEPT}, MAX_MANIFEST_BYTES)
        if answer.status_code == 404:
            raise ModelNotFound(
                f"pull model manifest: file does not exist ({client.host} has no {client.repository}:{name.tag})",
                model=name.short,
            )
        if answer.status_code != 200:
            raise SourceError(
                f"{client.host} answers with status {answer.status_code} when asked for {name.short}.",
                http_status=answer.status_code,
            )
        announced = reference if ":" in reference else answer.headers.get("Docker-Content-Digest")
        check_digest(content, announced)
        found = read_manifest(content)
        if isinstance(found, RemoteManifest):
            return found
        reference = str(found)
    raise ModelInvalid("The name stands for an index of indexes, and not for a model.")


def _file(layer: Layer, client: RegistryClient) -> ResolvedFile:
    return ResolvedFile(
        media_type=layer.media_type,
        places=(_place(layer.digest, client),),
        digest=layer.digest,
        size=layer.size,
    )


def _place(digest: Digest, client: RegistryClient) -> HttpFile:
    return HttpFile(client.url(f"blobs/{digest}"), client.login, client.rules)
