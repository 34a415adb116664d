"""ModelStore: the models of one folder, in the manifests and blobs layout that Ollama uses."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

from registry.atomic_write import write_atomically
from registry.blob_writer import BlobWriter
from registry.blobs import Blob, Blobs
from registry.digest import Digest
from registry.errors import ModelCorrupt, ModelInvalid, ModelNotFound, RegistryError, StoreReadOnly
from registry.gguf_metadata import GgufMetadata, read_gguf
from registry.locks import held, writing
from registry.manifest import (
    MAX_MANIFEST_BYTES,
    Manifest,
)
from registry.manifests import Manifests
from registry.name import ModelName
from registry.stored_model import MAX_TEXT_BYTES, StoredModel

logger = logging.getLogger(__name__)

_PRUNE_AGE_SECONDS = 3600.0


class ModelStore:
    """Owns the models of one folder. Every method blocks; several processes may use one folder.

    Stores layered underneath are only read: their models are found after our own, and what is made
    of them refers to their blobs. Changes are made under one lock for the folder, and become visible
    by one rename. Methods that write raise StoreReadOnly or DiskFull when the disk refuses.
    """

    def __init__(self, root: Path, layers: Sequence[Path] = ()) -> None:
        self.root = root
        self.layers = tuple(layers)
        self.blobs = Blobs(root, layers)
        self._own = Manifests(root)
        self._layers = tuple(Manifests(layer) for layer in layers)
        self._lock_file = root / "locks" / "store.lock"
        self._headers: dict[Digest, tuple[int, int, GgufMetadata]] = {}
        self._headers_lock = threading.Lock()

    def models(self) -> list[StoredModel]:
        """Every model, newest first. Manifests that cannot be read are skipped with a logged warning.

        A name in a layer is left out when the store itself, or a layer above, has it.
        """
        found: dict[str, StoredModel] = {}
        for manifests in (self._own, *self._layers):
            for name, path in manifests.names():
                if name.folded in found:
                    continue
                try:
                    found[name.folded] = self._read(name, path, manifests is self._own)
                except ModelNotFound:
                    continue
                except RegistryError as error:
                    logger.warning("The manifest of %s cannot be read: %s", name.short, error.message)
        return sorted(found.values(), key=lambda model: (model.modified_at, model.name.full), reverse=True)

    def find(self, name: ModelName) -> StoredModel:
        """The model of that name, in whatever case it is spelled. Raises ModelNotFound or ModelInvalid."""
        return self._read(*self._locate(name))

    def read_manifest(self, name: ModelName) -> bytes:
        """A manifest's bytes as they were installed. Raises ModelNotFound or ModelInvalid."""
        installed, path, _ = self._locate(name)
        return _read_manifest(installed, path)[0]

    def copy(self, source: ModelName, destination: ModelName) -> None:
        """Give a model a second name, replacing what had it. Raises ModelNotFound or ModelInvalid."""
        with self._changing():
            content = self._locate(source)[1].read_bytes()
            Manifest.from_bytes(content)
            if source.folded != destination.folded:
                self._replace(destination, content)

    def delete(self, name: ModelName) -> None:
        """Remove a name, and the blobs that no other name needs. Raises ModelNotFound.

        Raises StoreReadOnly for a model of a store layered underneath. One of those that was hidden
        by the removed one can be seen again.
        """
        self.check_own(name)
        with self._changing():
            found = self._own.find(name)
            if found is None:
                raise ModelNotFound(f"model '{name.short}' not found", model=name.short)
            former = self._former(found[1])
            self._own.remove(found[1])
            self._collect(former)

    def check_own(self, name: ModelName) -> None:
        """Raises StoreReadOnly for a model that only a store layered underneath has."""
        if self._own.find(name) is None and any(layer.find(name) for layer in self._layers):
            raise StoreReadOnly(
                f"{name.short} belongs to a store that lies under yours and is only read (store.layers); "
                "remove it where it was installed.",
                model=name.short,
            )

    def write_manifest(
        self,
        name: ModelName,
        manifest: Manifest,
        content: bytes | None = None,
        *,
        bring: Callable[[], None] | None = None,
    ) -> list[Digest]:
        """Install a model, replacing what had its name; returns the blobs this left unneeded and removed.

        `content` are the manifest's bytes as its source has them, stored unchanged. `bring` is called
        first: it may put blobs in place, which nobody will remove before the manifest names them.
        Raises ModelCorrupt when a blob is missing or has another size than the manifest says.
        """
        with self._changing():
            if bring is not None:
                bring()
            for layer in manifest.all_layers:
                actual = self.blobs.size(layer.digest)
                if actual != layer.size:
                    raise ModelCorrupt(
                        f"The file of {layer.digest} has {actual} bytes; the manifest says {layer.size}.",
                        digest=str(layer.digest),
                    )
            return self._replace(name, manifest.to_bytes() if content is None else content)

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
            gone = self._collect(candidates)
            self.blobs.addresses.forget(lambda digest: not self.blobs.has_own(digest))
            return gone

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        with writing(self.root), held(self._lock_file):
            yield

    def _locate(self, name: ModelName) -> tuple[ModelName, Path, bool]:
        """The installed spelling of a name, its manifest, and whether that is our own. Raises ModelNotFound."""
        for manifests in (self._own, *self._layers):
            found = manifests.find(name)
            if found is not None:
                return *found, manifests is self._own
        raise ModelNotFound(f"model '{name.short}' not found", model=name.short)

    def _read(self, name: ModelName, path: Path, is_own: bool) -> StoredModel:
        content, modified = _read_manifest(name, path)
        return StoredModel(
            store=self,
            name=name,
            digest=hashlib.sha256(content).hexdigest(),
            modified_at=datetime.fromtimestamp(modified).astimezone(),
            manifest=Manifest.from_bytes(content),
            is_own=is_own,
        )

    def _replace(self, name: ModelName, content: bytes) -> list[Digest]:
        """Write a manifest under the installed spelling of its name, if there is one."""
        found = self._own.find(name)
        path = found[1] if found is not None else self._own.prepare(name)
        former = self._former(path)
        write_atomically(path, content, self.root / "partials")
        return self._collect(former)

    def _former(self, path: Path) -> list[Digest]:
        """The blobs of a manifest that is about to go; none when it cannot be read."""
        try:
            return [layer.digest for layer in Manifest.from_bytes(path.read_bytes()).all_layers]
        except (OSError, ModelInvalid):
            return []

    def unneeded(self, candidates: Iterable[Digest]) -> list[Digest]:
        """Those of the store's own blobs that no manifest names and no unfinished pull wants.

        There are none while a manifest cannot be read, since it may need them.
        """
        unneeded = set(candidates)
        if not unneeded:
            return []
        unneeded -= self.blobs.pulls.digests()
        for path in self._own.files():
            try:
                unneeded.difference_update(layer.digest for layer in Manifest.from_bytes(path.read_bytes()).all_layers)
            except (OSError, ModelInvalid):
                logger.warning("No blobs are removed: the manifest %s cannot be read and may need them.", path)
                return []
        return [digest for digest in sorted(unneeded) if self.blobs.has_own(digest)]

    def _collect(self, candidates: Iterable[Digest]) -> list[Digest]:
        """Remove those of the blobs that no manifest names."""
        return [digest for digest in self.unneeded(candidates) if self.blobs.remove(digest)]


def _read_manifest(name: ModelName, path: Path) -> tuple[bytes, float]:
    """A manifest's bytes and when they were written."""
    try:
        status = path.stat()
        if status.st_size > MAX_MANIFEST_BYTES:
            raise ModelInvalid(f"The manifest has more than {MAX_MANIFEST_BYTES} bytes.")
        return path.read_bytes(), status.st_mtime
    except FileNotFoundError:
        raise ModelNotFound(f"model '{name.short}' not found", model=name.short) from None
    except OSError as error:
        raise ModelInvalid(f"The manifest of {name.short} cannot be read: {error.strerror}.") from error
