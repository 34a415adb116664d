"""Manifests as registries give them: which of them are models that can be run here. Pure decisions."""

from __future__ import annotations

from dataclasses import dataclass

from registry.digest import Digest
from registry.errors import DigestMismatch, InvalidRequest, ModelInvalid, SourceError, Unsupported
from registry.manifest import (
    CONFIG_TYPE,
    MANIFEST_TYPE,
    MAX_MANIFEST_BYTES,
    MODEL_LAYER,
    TENSOR_LAYER,
    Layer,
    Manifest,
    read_json_object,
)

OCI_MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
DOCKER_LIST_TYPE = "application/vnd.docker.distribution.manifest.list.v2+json"
ACCEPT = ", ".join((MANIFEST_TYPE, OCI_MANIFEST_TYPE, OCI_INDEX_TYPE, DOCKER_LIST_TYPE))

MAX_REMOTE_LAYERS = 1024
"""Models of more files than that are no models."""
_MAX_INDEX_ENTRIES = 256
_MANIFEST_TYPES = frozenset({MANIFEST_TYPE, OCI_MANIFEST_TYPE})
_SAFETENSORS = "safetensors"


@dataclass(frozen=True, slots=True)
class RemoteManifest:
    """A model's manifest, and the very bytes it came in."""

    manifest: Manifest
    content: bytes

    @property
    def blobs(self) -> tuple[Layer, ...]:
        """Each file once: the layers in order, the config last."""
        return tuple({layer.digest: layer for layer in self.manifest.all_layers}.values())


def check_digest(content: bytes, announced: str | None) -> None:
    """Compare a manifest with the digest its registry tells. Raises DigestMismatch, or SourceError for no digest."""
    if announced is None or not announced.startswith("sha256:"):
        return
    try:
        expected = Digest.parse(announced)
    except InvalidRequest:
        raise SourceError("The registry tells a digest of its manifest that is none.") from None
    actual = Digest.of(content)
    if actual != expected:
        raise DigestMismatch(str(expected), str(actual))


def read_manifest(content: bytes) -> RemoteManifest | Digest:
    """A model's manifest, or the digest of the one that an index leads to.

    Raises ModelInvalid, Unsupported, or SourceError for what no registry answers.
    """
    if not content.lstrip().startswith(b"{"):
        raise SourceError("What answers is no registry: where a manifest should be is something else.")
    document = read_json_object(content, "manifest", MAX_MANIFEST_BYTES)
    if document.get("schemaVersion") == 1:
        raise ModelInvalid("The manifest is of schema version 1, which holds container images and no models.")
    if "manifests" in document:
        return _sole_entry(document["manifests"])
    manifest = Manifest.from_bytes(content)
    _check_is_model(manifest)
    return RemoteManifest(manifest, content)


def manifest_type(content: bytes) -> str:
    """The media type under which a stored manifest is sent back."""
    told = read_json_object(content, "manifest", MAX_MANIFEST_BYTES).get("mediaType")
    return told if isinstance(told, str) and told in _MANIFEST_TYPES else MANIFEST_TYPE


def _sole_entry(entries: object) -> Digest:
    """The one model of an index, besides what was attached to it."""
    if not isinstance(entries, list) or len(entries) > _MAX_INDEX_ENTRIES:
        raise ModelInvalid(f"The index does not list at most {_MAX_INDEX_ENTRIES} manifests.")
    found = [entry for entry in entries if isinstance(entry, dict) and not _is_attachment(entry)]
    if len(found) != 1 or not isinstance(found[0].get("digest"), str):
        raise ModelInvalid(
            f"The name stands for an index of {len(found)} manifests, as container images have them, and not for a "
            "model."
        )
    try:
        return Digest.parse(found[0]["digest"])
    except InvalidRequest:
        raise ModelInvalid("The index names a manifest by a digest in the wrong form.") from None


def _is_attachment(entry: dict[str, object]) -> bool:
    platform = entry.get("platform")
    system = platform.get("os") if isinstance(platform, dict) else None
    annotations = entry.get("annotations")
    is_attestation = isinstance(annotations, dict) and "vnd.docker.reference.digest" in annotations
    return is_attestation or (system == "unknown" and entry.get("mediaType") not in _MANIFEST_TYPES)


def _check_is_model(manifest: Manifest) -> None:
    if len(manifest.layers) > MAX_REMOTE_LAYERS:
        raise ModelInvalid(f"The manifest has {len(manifest.layers)} layers; {MAX_REMOTE_LAYERS} are allowed.")
    sizes: dict[Digest, int] = {}
    for layer in manifest.all_layers:
        if sizes.setdefault(layer.digest, layer.size) != layer.size:
            raise ModelInvalid(f"The manifest gives {layer.digest} two sizes.")
    if manifest.config.size > MAX_MANIFEST_BYTES:
        raise ModelInvalid(f"The manifest's config has {manifest.config.size} bytes, too many for what it is.")
    if manifest.of_type(MODEL_LAYER):
        return
    types = {layer.media_type for layer in manifest.layers}
    if any(kind == TENSOR_LAYER or _SAFETENSORS in kind for kind in types):
        raise Unsupported("This model is made of safetensors; only GGUF models are run here.")
    if not types and manifest.config.media_type == CONFIG_TYPE:
        raise Unsupported("This model has no weights: it runs on its maker's servers, which is not supported.")
    raise ModelInvalid("What this name stands for is no GGUF model; a container image may be.")
