"""ModelStore: the models of one folder, in the manifests and blobs layout that Ollama uses."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path

from filelock import BaseFileLock

from registry.blobs import Blob, Blobs, BlobWriter, write_atomically
from registry.capabilities import capabilities
from registry.digest import Digest
from registry.errors import InvalidName, ModelCorrupt, ModelInvalid, ModelNotFound, RegistryError, Unsupported
from registry.gguf_metadata import GgufMetadata, read_gguf
from registry.locks import held, writing
from registry.manifest import (
    ADAPTER_LAYER,
    LICENSE_LAYER,
    MAX_MANIFEST_BYTES,
    MESSAGES_LAYER,
    MODEL_LAYER,
    PARAMS_LAYER,
    SYSTEM_LAYER,
    TEMPLATE_LAYER,
    TENSOR_LAYER,
    Layer,
    Manifest,
    ModelConfig,
    read_json,
    read_json_object,
)
from registry.name import ModelName
from registry.parameters import ParameterValue
from registry.parts import join_shards

logger = logging.getLogger(__name__)

MAX_TEXT_BYTES = 16 * 1024 * 1024
_PRUNE_AGE_SECONDS = 3600.0


@dataclass(frozen=True)
class StoredModel:
    """A model of the store, as its manifest was when it was looked up. Properties read small files."""

    store: ModelStore
    name: ModelName
    digest: str
    """Of the manifest file, hex without prefix: what people are shown as the model's digest."""
    modified_at: datetime
    manifest: Manifest

    @property
    def size(self) -> int:
        return self.manifest.size

    @cached_property
    def config(self) -> ModelConfig:
        return ModelConfig.from_bytes(self.store.read_blob(self.manifest.config.digest))

    @property
    def weights(self) -> tuple[Layer, ...]:
        """The files of the weights, shards in order. Raises Unsupported for models that are no GGUF files."""
        layers = self.manifest.of_type(MODEL_LAYER)
        if layers:
            return layers
        if self.manifest.of_type(TENSOR_LAYER):
            raise Unsupported(f"{self.name.short} is made of safetensors, which is not supported yet.")
        if self.config.remote_host:
            raise Unsupported(f"{self.name.short} runs on another server, which is not supported.")
        raise ModelInvalid(f"{self.name.short} has no model file.")

    @property
    def adapters(self) -> tuple[Layer, ...]:
        """LoRA files that change the weights."""
        return self.manifest.of_type(ADAPTER_LAYER)

    @property
    def model_digest(self) -> Digest:
        """Which weights these are: the digest of their file, or one over those of all shards. Raises as `weights`."""
        first, *others = self.weights
        if not others:
            return first.digest
        return Digest.of("\n".join(str(layer.digest) for layer in (first, *others)).encode())

    @property
    def model_paths(self) -> tuple[Path, ...]:
        """The files of the weights, shards in order; raises as `weights` does."""
        return tuple(self.store.blob_path(layer.digest) for layer in self.weights)

    @property
    def model_path(self) -> Path:
        """The first file of the weights; raises as `weights` does."""
        return self.model_paths[0]

    @cached_property
    def template(self) -> str | None:
        """The model's own template, Jinja or Go; None leaves it to the one in its file."""
        texts = self._texts(TEMPLATE_LAYER)
        return texts[-1] if texts else None

    @cached_property
    def system(self) -> str | None:
        texts = self._texts(SYSTEM_LAYER)
        return texts[-1] if texts else None

    @cached_property
    def licenses(self) -> list[str]:
        return self._texts(LICENSE_LAYER)

    @cached_property
    def parameters(self) -> dict[str, ParameterValue]:
        """As they were stored, by this program or another; `stop` is a list. Unknown names are kept."""
        found: dict[str, ParameterValue] = {}
        for layer in self.manifest.of_type(PARAMS_LAYER):
            document = read_json_object(self.store.read_blob(layer.digest), "parameters layer", MAX_TEXT_BYTES)
            for name, value in document.items():
                if isinstance(value, list):
                    found[name] = [str(one) for one in value]
                elif isinstance(value, int | float):
                    found[name] = value
                elif isinstance(value, str):
                    found[name] = [value] if name == "stop" else value
        return found

    @cached_property
    def messages(self) -> list[tuple[str, str]]:
        """Role and text of each turn."""
        found: list[tuple[str, str]] = []
        for layer in self.manifest.of_type(MESSAGES_LAYER):
            document = read_json(self.store.read_blob(layer.digest), "messages layer", MAX_TEXT_BYTES)
            for turn in document if isinstance(document, list) else []:
                role, content = (turn.get("role"), turn.get("content")) if isinstance(turn, dict) else (None, None)
                if not isinstance(role, str) or not isinstance(content, str):
                    raise ModelInvalid("The messages layer has a turn without role and content.")
                found.append((role, content))
        return found

    def metadata(self) -> GgufMetadata:
        """What the headers of the weights' files say; each is read once. Raises ModelInvalid or ModelCorrupt."""
        for layer in self.weights:
            self.store.blobs.check_size(layer.digest, layer.size)
        return join_shards([self.store.metadata(layer.digest) for layer in self.weights])

    def capabilities(self) -> tuple[str, ...]:
        """What clients may use the model for."""
        found = capabilities(self.metadata(), self.template)
        return (*found, *(one for one in self.config.capabilities if one not in found))

    def details(self) -> dict[str, object]:
        """The `details` object of /api/tags."""
        config = self.config
        details: dict[str, object] = {
            "parent_model": "",
            "format": config.model_format,
            "family": config.model_family,
            "families": list(config.model_families) or None,
            "parameter_size": config.model_type,
            "quantization_level": config.file_type,
        }
        if config.context_length is not None:
            details["context_length"] = config.context_length
        if config.embedding_length is not None:
            details["embedding_length"] = config.embedding_length
        return details

    def verify_unchanged(self) -> None:
        """Compare the weights' files with what was verified; hashes them again when their time differs.

        Blocks, for seconds while it hashes a large file. Raises ModelCorrupt.
        """
        for layer in self.weights:
            self.store.blobs.verify_unchanged(layer.digest, layer.size)

    @property
    def is_damaged(self) -> bool:
        """Whether a file of it is missing, of the wrong size, or was found to have another content."""
        return any(self.store.blobs.is_damaged(layer.digest, layer.size) for layer in self.manifest.all_layers)

    def _texts(self, media_type: str) -> list[str]:
        layers = self.manifest.of_type(media_type)
        return [self.store.read_blob(layer.digest).decode("utf-8", "replace") for layer in layers]


class ModelStore:
    """Owns the models of one folder. Every method blocks; several processes may use one folder.

    Changes are made under one lock for the folder, and become visible by one rename. Methods that
    write raise StoreReadOnly or DiskFull when the disk refuses.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = Blobs(root)
        self._manifests = root / "manifests"
        self._lock_file = root / "locks" / "store.lock"
        self._headers: dict[Digest, tuple[int, int, GgufMetadata]] = {}
        self._headers_lock = threading.Lock()

    def models(self) -> list[StoredModel]:
        """Every model, newest first. Manifests that cannot be read are skipped with a logged warning."""
        found = []
        for name, path in self._names():
            try:
                found.append(self._read(name, path))
            except ModelNotFound:
                continue
            except RegistryError as error:
                logger.warning("The manifest of %s cannot be read: %s", name.short, error.message)
        return sorted(found, key=lambda model: (model.modified_at, model.name.full), reverse=True)

    def find(self, name: ModelName) -> StoredModel:
        """The model of that name, in whatever case it is spelled. Raises ModelNotFound or ModelInvalid."""
        installed, path = self._locate(name)
        return self._read(installed, path)

    def copy(self, source: ModelName, destination: ModelName) -> None:
        """Give a model a second name, replacing what had it. Raises ModelNotFound or ModelInvalid."""
        with self._changing():
            content = self._locate(source)[1].read_bytes()
            Manifest.from_bytes(content)
            if source.folded != destination.folded:
                self._replace(destination, content)

    def delete(self, name: ModelName) -> None:
        """Remove a name, and the blobs that no other name needs. Raises ModelNotFound."""
        with self._changing():
            _, path = self._locate(name)
            former = self._former(path)
            path.unlink(missing_ok=True)
            self._remove_empty_folders(path.parent)
            self._collect(former)

    def write_manifest(self, name: ModelName, manifest: Manifest) -> list[Digest]:
        """Install a model, replacing what had its name; returns the blobs this left unneeded and removed.

        Raises ModelCorrupt when a blob is missing or has another size than the manifest says.
        """
        with self._changing():
            for layer in manifest.all_layers:
                actual = self.blobs.size(layer.digest)
                if actual != layer.size:
                    raise ModelCorrupt(
                        f"The file of {layer.digest} has {actual} bytes; the manifest says {layer.size}.",
                        digest=str(layer.digest),
                    )
            return self._replace(name, manifest.to_bytes())

    def has_blob(self, digest: Digest) -> bool:
        """Whether the blob is there, and has not been found damaged."""
        return self.blobs.has(digest)

    def blob_path(self, digest: Digest) -> Path:
        return self.blobs.path(digest)

    def read_blob(self, digest: Digest) -> bytes:
        """A small blob's content, at most `MAX_TEXT_BYTES`. Raises ModelCorrupt."""
        return self.blobs.read(digest, MAX_TEXT_BYTES)

    def add_blob(self, chunks: Iterable[bytes], expected: Digest | None = None) -> Blob:
        """Store bytes under their digest. Raises DigestMismatch."""
        return self.blobs.add(chunks, expected)

    def blob_writer(self, expected: Digest | None = None) -> BlobWriter:
        """A blob to be written piece by piece; see BlobWriter."""
        return self.blobs.writer(expected)

    def try_download_lock(self, digest: Digest) -> BaseFileLock | None:
        """The right to download a digest, or None while another process has it."""
        return self.blobs.try_lock(digest)

    def metadata(self, digest: Digest) -> GgufMetadata:
        """The header of a GGUF blob, read again only when the file has changed."""
        path = self.blob_path(digest)
        try:
            status = path.stat()
        except OSError:
            raise ModelCorrupt(f"The file of {digest} is missing from the model store.", digest=str(digest)) from None
        facts = (status.st_size, status.st_mtime_ns)
        with self._headers_lock:
            known = self._headers.get(digest)
        if known is not None and known[:2] == facts:
            return known[2]
        metadata = read_gguf(path)
        with self._headers_lock:
            self._headers[digest] = (*facts, metadata)
        return metadata

    def prune(self, min_age_seconds: float = _PRUNE_AGE_SECONDS) -> list[Digest]:
        """Remove blobs that no model needs and partials that nobody writes, if they are old enough.

        Does nothing to blobs while any manifest cannot be read, since it may need them.
        """
        with self._changing():
            self.blobs.remove_stale_partials(min_age_seconds)
            candidates = [digest for digest, age in self.blobs.all() if age >= min_age_seconds]
            return self._collect(candidates)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        with writing(self.root), held(self._lock_file):
            yield

    def _names(self) -> Iterator[tuple[ModelName, Path]]:
        for path in _files(self._manifests, depth=4):
            with contextlib.suppress(InvalidName):
                host, namespace, model, tag = path.relative_to(self._manifests).parts
                yield ModelName(host.replace("%3A", ":"), namespace, model, tag), path

    def _path(self, name: ModelName) -> Path:
        host, *rest = name.path.parts
        if os.name == "nt":
            host = host.replace(":", "%3A")
        return self._manifests.joinpath(host, *rest)

    def _locate(self, name: ModelName) -> tuple[ModelName, Path]:
        """The installed spelling of a name and its manifest. Raises ModelNotFound."""
        path = self._path(name)
        if path.is_file():
            return name, path
        for installed, path in self._names():
            if installed.folded == name.folded:
                return installed, path
        raise ModelNotFound(f"model '{name.short}' not found", model=name.short)

    def _read(self, name: ModelName, path: Path) -> StoredModel:
        try:
            status = path.stat()
            if status.st_size > MAX_MANIFEST_BYTES:
                raise ModelInvalid(f"The manifest has more than {MAX_MANIFEST_BYTES} bytes.")
            content = path.read_bytes()
        except FileNotFoundError:
            raise ModelNotFound(f"model '{name.short}' not found", model=name.short) from None
        except OSError as error:
            raise ModelInvalid(f"The manifest of {name.short} cannot be read: {error.strerror}.") from error
        return StoredModel(
            store=self,
            name=name,
            digest=hashlib.sha256(content).hexdigest(),
            modified_at=datetime.fromtimestamp(status.st_mtime).astimezone(),
            manifest=Manifest.from_bytes(content),
        )

    def _replace(self, name: ModelName, content: bytes) -> list[Digest]:
        """Write a manifest under the installed spelling of its name, if there is one."""
        try:
            _, path = self._locate(name)
        except ModelNotFound:
            path = self._path(name)
        former = self._former(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content, self.root / "partials")
        return self._collect(former)

    def _former(self, path: Path) -> list[Digest]:
        """The blobs of a manifest that is about to go; none when it cannot be read."""
        try:
            return [layer.digest for layer in Manifest.from_bytes(path.read_bytes()).all_layers]
        except (OSError, ModelInvalid):
            return []

    def _collect(self, candidates: Iterable[Digest]) -> list[Digest]:
        """Remove those of the blobs that no manifest names."""
        unneeded = set(candidates)
        if not unneeded:
            return []
        for path in _files(self._manifests, depth=4):
            try:
                unneeded.difference_update(layer.digest for layer in Manifest.from_bytes(path.read_bytes()).all_layers)
            except (OSError, ModelInvalid):
                logger.warning("No blobs are removed: the manifest %s cannot be read and may need them.", path)
                return []
        return [digest for digest in sorted(unneeded) if self.blobs.has(digest) and self.blobs.remove(digest)]

    def _remove_empty_folders(self, folder: Path) -> None:
        with contextlib.suppress(OSError):
            while folder != self._manifests:
                folder.rmdir()
                folder = folder.parent


def _files(folder: Path, depth: int) -> Iterator[Path]:
    """The files exactly that deep, in order; hidden ones are some system's own."""
    try:
        with os.scandir(folder) as entries:
            found = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda one: one.name)
    except OSError:
        return
    for entry in found:
        if depth > 1 and entry.is_dir():
            yield from _files(Path(entry), depth - 1)
        elif depth == 1 and entry.is_file():
            yield Path(entry)
