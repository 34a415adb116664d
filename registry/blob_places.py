"""Where the file of a digest is: in the store, in another program's folder, or in a store layered underneath."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from registry.digest import Digest
from registry.references import Reference, References


class BlobPlaces:
    """Looks for files; writes nothing. What is in the store itself comes first, then references, then the layers."""

    def __init__(self, root: Path, layers: Sequence[Path] = ()) -> None:
        self._folder = root / "blobs"
        self._verified = root / "verified"
        self.references = References(root)
        self._layers = tuple(BlobPlaces(layer) for layer in layers)

    def own(self, digest: Digest) -> Path:
        """Where the store itself has a file, or would have it."""
        return self._folder / digest.file_name

    def find(self, digest: Digest) -> Path:
        """The file of a digest; where nothing has it, the place where it should be."""
        own = self.own(digest)
        if own.exists():
            return own
        reference = self.references.find(digest)
        if reference is not None and reference.state == "there":
            return reference.path
        for layer in self._layers:
            path = layer.find(digest)
            if path.exists():
                return path
        return own if reference is None else reference.path

    def reference(self, digest: Digest) -> Reference | None:
        """The reference that a digest is found by, if it is found by one."""
        if self.own(digest).exists():
            return None
        return self.references.find(digest)

    def verdict_files(self, digest: Digest) -> list[Path]:
        """Where it may be recorded what was found of a file: in the store, then in its layers."""
        return [
            self._verified / digest.file_name,
            *(file for one in self._layers for file in one.verdict_files(digest)),
        ]
