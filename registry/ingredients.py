"""The files that a new model is made of: its base's, those that were uploaded, and those that are made on the way."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from registry.adapter_files import gguf_adapters
from registry.blobs import Blob
from registry.digest import Digest
from registry.errors import InvalidRequest, ModelInvalid
from registry.file_types import check_quantizable
from registry.gguf_metadata import GgufMetadata
from registry.manifest import ADAPTER_LAYER, DRAFT_LAYER, FILE_LAYERS, MODEL_LAYER, PROJECTOR_LAYER, Layer
from registry.parts import Part, check_adapter, check_projector, check_weights, join_shards, order_weights, part_type
from registry.recipe import Recipe
from registry.scratch import Scratch
from registry.store import ModelStore
from registry.stored_model import StoredModel

_GGUF_MAGIC = b"GGUF"


class Ingredients:
    """Owns which files go into one new model. Every method blocks."""

    def __init__(self, store: ModelStore, recipe: Recipe) -> None:
        self._store = store
        self._recipe = recipe
        self.base: StoredModel | None = None
        self._parts: dict[str, list[Part]] = {media_type: [] for media_type in FILE_LAYERS}
        self._made: dict[str, list[tuple[Path, GgufMetadata]]] = {media_type: [] for media_type in FILE_LAYERS}
        """Files that were converted or quantized, not yet blobs: given up, they go with the scratch folder."""

    def find_models(self) -> None:
        """Look the models up that the recipe names. Raises ModelNotFound."""
        for name in self._recipe.models:
            found = self._store.find(name)
            if name == self._recipe.from_model:
                self.base = found

    def gather(self) -> None:
        """Find every file and check that they belong together. Raises InvalidRequest, Unsupported or ModelInvalid."""
        recipe, parts = self._recipe, self._parts
        if self.base is not None:
            for media_type in FILE_LAYERS:
                parts[media_type] = [self._stored(layer) for layer in self.base.manifest.of_type(media_type)]
        if not recipe.is_checkpoint:
            self._take_files(self._read(recipe.files))
        parts[ADAPTER_LAYER] += self._read(gguf_adapters(recipe.adapters))
        if recipe.draft_files:
            parts[DRAFT_LAYER] = list(order_weights(self._read(recipe.draft_files)))
        elif recipe.draft_model is not None:
            parts[DRAFT_LAYER] = []
        self._check()

    def metadata(self, media_type: str = MODEL_LAYER) -> GgufMetadata:
        """Of the weights as they are by now, or of the draft model's."""
        if self._made[media_type]:
            return self._made[media_type][0][1]
        return join_shards([part.metadata for part in self._parts[media_type]])

    def projectors(self) -> list[GgufMetadata]:
        return [part.metadata for part in self._parts[PROJECTOR_LAYER]]

    def named_files(self, media_type: str, scratch: Scratch) -> list[Path]:
        """Files of weights under names by which the quantizer finds all shards."""
        if self._made[media_type]:
            return [self._made[media_type][0][0]]
        paths = [self._store.blob_path(part.digest) for part in self._parts[media_type]]
        if len(paths) == 1:
            return paths
        names = [f"model-{number:05}-of-{len(paths):05}.gguf" for number in range(1, len(paths) + 1)]
        folder = scratch.link(dict(zip(names, paths, strict=True)))
        return [folder / name for name in names]

    def add_made(self, media_type: str, path: Path, metadata: GgufMetadata) -> None:
        """Have a file that was made: an adapter besides the others, weights in place of those before."""
        if media_type != ADAPTER_LAYER:
            self._made[media_type].clear()
        self._made[media_type].append((path, metadata))

    def store_made(self) -> set[Digest]:
        """Make blobs of the files that were made, and tell which they are."""
        new = set()
        for media_type, made in self._made.items():
            if made and media_type != ADAPTER_LAYER:
                self._parts[media_type] = []
            for path, metadata in made:
                blob = self._store.blobs.take(path)
                self._parts[media_type].append(Part(path.name, blob.digest, blob.size, metadata))
                new.add(blob.digest)
            made.clear()
        return new

    def layers(self) -> list[tuple[str, Blob]]:
        """Every file by the type of its layer, in the order of a manifest."""
        return [
            (media_type, Blob(part.digest, part.size)) for media_type in FILE_LAYERS for part in self._parts[media_type]
        ]

    def uploaded(self, files: Mapping[str, Digest]) -> dict[str, tuple[Path, int]]:
        """Where each file is, and its size. Raises InvalidRequest for what has not been uploaded."""
        for title, digest in files.items():
            if not self._store.has_blob(digest):
                raise InvalidRequest(f"The file {title[:200]} ({digest}) has not been uploaded.", field="files")
        return {
            title: (self._store.blob_path(digest), self._store.blobs.size(digest)) for title, digest in files.items()
        }

    def uploaded_one(self, digest: Digest, field: str) -> Path:
        """Where a file is that a field of the request names. Raises InvalidRequest."""
        if not self._store.has_blob(digest):
            raise InvalidRequest(f"The file {digest} has not been uploaded.", field=field)
        return self._store.blob_path(digest)

    def _take_files(self, given: list[Part]) -> None:
        kinds = [part_type(part.metadata) for part in given]
        weights = [part for part, kind in zip(given, kinds, strict=True) if kind == MODEL_LAYER]
        if self.base is not None and weights:
            raise InvalidRequest("A model is made from another model or from a file, not from both.", field="files")
        for part, kind in zip(given, kinds, strict=True):
            if kind == ADAPTER_LAYER:
                raise InvalidRequest(f"{part.title} is an adapter; name it as one (ADAPTER).", field="files")
            if kind == PROJECTOR_LAYER:
                self._parts[PROJECTOR_LAYER].append(part)
        if self.base is None:
            self._parts[MODEL_LAYER] = list(order_weights(weights))

    def _check(self) -> None:
        recipe = self._recipe
        if not self._parts[MODEL_LAYER] and not self._made[MODEL_LAYER] and self.base is not None:
            # A base without GGUF weights: the error that using it would give.
            _ = self.base.weights
        model = self.metadata()
        check_weights(model)
        for projector in self.projectors():
            check_projector(projector)
        for part in self._parts[ADAPTER_LAYER]:
            check_adapter(part.metadata, model)
        if self._parts[DRAFT_LAYER]:
            check_weights(self.metadata(DRAFT_LAYER))
        if recipe.quantize:
            check_quantizable(model)
        if recipe.draft_quantize:
            if not self._parts[DRAFT_LAYER]:
                raise InvalidRequest("--draft-quantize requires a DRAFT model", field="draft_quantize")
            check_quantizable(self.metadata(DRAFT_LAYER), "draft_quantize")
        if recipe.calibration is not None:
            self.uploaded_one(recipe.calibration, "calibration")

    def _stored(self, layer: Layer) -> Part:
        return Part(layer.digest.short, layer.digest, layer.size, self._store.metadata(layer.digest))

    def _read(self, files: Mapping[str, Digest]) -> list[Part]:
        parts = []
        for title, (path, size) in self.uploaded(files).items():
            with path.open("rb") as file:
                if file.read(len(_GGUF_MAGIC)) != _GGUF_MAGIC:
                    raise ModelInvalid("supplied file was not in GGUF format", file=title)
            digest = files[title]
            parts.append(Part(title, digest, size, self._store.metadata(digest)))
        return parts
