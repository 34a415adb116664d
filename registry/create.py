"""Builds a model from another model, from uploaded GGUF files, or from a checkpoint."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path

from registry.adapter_files import adapter_checkpoints, described_base, gguf_adapters
from registry.blobs import Blob
from registry.created_config import config_by_recipe, config_of
from registry.digest import Digest
from registry.errors import InvalidRequest, ModelInvalid, Unsupported
from registry.file_types import check_quantizable, check_quantizable_to
from registry.gguf_metadata import GgufMetadata, read_gguf
from registry.importance_matrix import ImportanceMatrix, check_importance, read_importance_matrix
from registry.manifest import (
    ADAPTER_LAYER,
    CONFIG_TYPE,
    DRAFT_LAYER,
    FILE_LAYERS,
    MODEL_LAYER,
    PROJECTOR_LAYER,
    Layer,
    Manifest,
    ModelConfig,
)
from registry.parts import (
    Part,
    check_adapter,
    check_projector,
    check_weights,
    join_shards,
    order_weights,
    part_type,
)
from registry.progress import Progress
from registry.recipe import Recipe, check_recipe
from registry.scratch import Scratch
from registry.store import ModelStore
from registry.stored_model import StoredModel
from registry.text_layers import plan_texts
from registry.workshop import Workshop

_NO_DIGEST = "0000000000000000000"
"""What clients are told in place of the digest of a file that is being made."""
_GGUF_MAGIC = b"GGUF"


async def create_model(
    store: ModelStore, recipe: Recipe, workshop: Workshop | None = None
) -> AsyncGenerator[Progress, None]:
    """Make a model, telling each step; the last is `success`. Disk work runs in threads.

    `workshop` quantizes and converts; without one both are refused. Raises InvalidRequest,
    Unsupported, ModelNotFound or ModelInvalid before anything is installed. Closing it ends
    what is under way and leaves nothing of it.
    """
    check_recipe(recipe)
    scratch = Scratch(store.root)
    try:
        async with contextlib.aclosing(_Creation(store, recipe, workshop, scratch).run()) as steps:
            async for progress in steps:
                yield progress
    finally:
        await asyncio.to_thread(scratch.remove)


class _Creation:
    """One creation: which files the model is made of so far."""

    def __init__(self, store: ModelStore, recipe: Recipe, workshop: Workshop | None, scratch: Scratch) -> None:
        self._store = store
        self._recipe = recipe
        self._workshop = workshop
        self._scratch = scratch
        self._base: StoredModel | None = None
        self._parts: dict[str, list[Part]] = {media_type: [] for media_type in FILE_LAYERS}
        self._matrix: ImportanceMatrix | None = None
        self._made: dict[str, list[tuple[Path, GgufMetadata]]] = {media_type: [] for media_type in FILE_LAYERS}
        """Files that were converted or quantized, not yet blobs: given up, they go with the scratch folder."""

    async def run(self) -> AsyncGenerator[Progress, None]:
        recipe = self._recipe
        if recipe.from_model is not None:
            self._base = await asyncio.to_thread(self._store.find, recipe.from_model)
        if recipe.is_checkpoint:
            async with contextlib.aclosing(self._convert()) as steps:
                async for progress in steps:
                    yield progress
        elif recipe.files or recipe.adapters or recipe.draft_files:
            yield Progress("parsing GGUF")
        await asyncio.to_thread(self._gather)
        for number, files in enumerate(adapter_checkpoints(recipe.adapters)):
            async with contextlib.aclosing(self._convert_adapter(number, files)) as steps:
                async for progress in steps:
                    yield progress
        if recipe.calibration is not None:
            async with contextlib.aclosing(self._calibrate(recipe.calibration)) as steps:
                async for progress in steps:
                    yield progress
        for media_type, file_type in ((MODEL_LAYER, recipe.quantize), (DRAFT_LAYER, recipe.draft_quantize)):
            if file_type:
                async with contextlib.aclosing(self._quantize(media_type, check_quantizable_to(file_type))) as steps:
                    async for progress in steps:
                        yield progress
        async for progress in self._install():
            yield progress

    async def _convert(self) -> AsyncGenerator[Progress, None]:
        yield Progress("converting model")
        if self._workshop is None:
            raise Unsupported("Checkpoints are not converted here.", field="files")
        sources = await asyncio.to_thread(self._uploaded, self._recipe.files)
        total = sum(size for _, size in sources.values())
        folder = await asyncio.to_thread(self._scratch.link, {name: path for name, (path, _) in sources.items()})
        target = await asyncio.to_thread(self._scratch.path, "converted.gguf")
        async with contextlib.aclosing(self._workshop.convert(folder, target)) as fractions:
            async for fraction in fractions:
                yield Progress("converting model", _NO_DIGEST, total, int(fraction * total))
        self._made[MODEL_LAYER] = [(target, await asyncio.to_thread(read_gguf, target))]

    async def _convert_adapter(self, number: int, files: Mapping[str, Digest]) -> AsyncGenerator[Progress, None]:
        status = "converting adapter"
        if self._workshop is None:
            raise Unsupported("Adapters are not converted here.", field="adapters")
        sources = await asyncio.to_thread(self._uploaded, files)
        total = sum(size for _, size in sources.values())
        folder = await asyncio.to_thread(self._scratch.link, {name: path for name, (path, _) in sources.items()})
        target = await asyncio.to_thread(self._scratch.path, f"adapter-{number}.gguf")
        work = self._workshop.convert(folder, target, described_base(self._metadata()))
        async with contextlib.aclosing(_tell(status, total, work)) as steps:
            async for progress in steps:
                yield progress
        metadata = await asyncio.to_thread(read_gguf, target)
        check_adapter(metadata, self._metadata())
        self._made[ADAPTER_LAYER].append((target, metadata))

    def _gather(self) -> None:
        """Find every file of the model and check that they belong together."""
        recipe, parts = self._recipe, self._parts
        if self._base is not None:
            for media_type in FILE_LAYERS:
                layers = self._base.manifest.of_type(media_type)
                parts[media_type] = [self._stored(layer) for layer in layers]
        if not recipe.is_checkpoint:
            given = self._read(recipe.files)
            weights = [part for part in given if part_type(part.metadata) == MODEL_LAYER]
            if self._base is not None and weights:
                raise InvalidRequest("A model is made from another model or from a file, not from both.", field="files")
            adapters = [part.title for part in given if part_type(part.metadata) == ADAPTER_LAYER]
            if adapters:
                raise InvalidRequest(f"{adapters[0]} is an adapter; name it as one (ADAPTER).", field="files")
            if self._base is None:
                parts[MODEL_LAYER] = list(order_weights(weights))
            parts[PROJECTOR_LAYER] += [part for part in given if part not in weights]
        parts[ADAPTER_LAYER] += self._read(gguf_adapters(recipe.adapters))
        if recipe.draft_files:
            parts[DRAFT_LAYER] = list(order_weights(self._read(recipe.draft_files)))
        self._check()

    def _check(self) -> None:
        if not self._parts[MODEL_LAYER] and not self._made[MODEL_LAYER] and self._base is not None:
            # A base without GGUF weights: the error that using it would give.
            _ = self._base.weights
        model = self._metadata()
        check_weights(model)
        for part in self._parts[PROJECTOR_LAYER]:
            check_projector(part.metadata)
        for part in self._parts[ADAPTER_LAYER]:
            check_adapter(part.metadata, model)
        if self._parts[DRAFT_LAYER]:
            check_weights(self._metadata(DRAFT_LAYER))
        if self._recipe.quantize:
            check_quantizable(model)
        if self._recipe.draft_quantize:
            if not self._parts[DRAFT_LAYER]:
                raise InvalidRequest("--draft-quantize requires a DRAFT model", field="draft_quantize")
            check_quantizable(self._metadata(DRAFT_LAYER), "draft_quantize")
        if self._recipe.calibration is not None:
            self._uploaded_blob(self._recipe.calibration, "calibration")
        if self._recipe.imatrix is not None:
            self._take_matrix(self._uploaded_blob(self._recipe.imatrix, "imatrix"))

    def _take_matrix(self, path: Path) -> None:
        matrix = read_importance_matrix(path)
        check_importance(matrix, self._metadata().tensors)
        self._matrix = matrix

    async def _calibrate(self, text: Digest) -> AsyncGenerator[Progress, None]:
        if self._workshop is None:
            raise Unsupported("Importance matrices are not computed here.", field="calibration")
        files = await asyncio.to_thread(self._named_files, MODEL_LAYER)
        target = await asyncio.to_thread(self._scratch.path, "importance.gguf")
        work = self._workshop.calibrate(files, self._store.blob_path(text), target)
        async with contextlib.aclosing(
            _tell("computing importance matrix", self._metadata().weights_size, work)
        ) as steps:
            async for progress in steps:
                yield progress
        await asyncio.to_thread(self._take_matrix, target)

    async def _quantize(self, media_type: str, file_type: str) -> AsyncGenerator[Progress, None]:
        before = self._metadata(media_type)
        if before.file_type_name == file_type:
            return
        if self._workshop is None:
            raise Unsupported("Models are not quantized here.", field="quantize")
        is_draft = media_type == DRAFT_LAYER
        status = f"quantizing {before.file_type_name} {'draft ' if is_draft else ''}model to {file_type}"
        files = await asyncio.to_thread(self._named_files, media_type)
        target = await asyncio.to_thread(self._scratch.path, f"quantized-{'draft' if is_draft else 'model'}.gguf")
        # What a matrix says holds for the model that it was made for.
        work = self._workshop.quantize(files, target, file_type, None if is_draft else self._matrix)
        async with contextlib.aclosing(_tell(status, before.weights_size, work)) as steps:
            async for progress in steps:
                yield progress
        yield Progress("verifying conversion")
        after = await asyncio.to_thread(read_gguf, target)
        if after.file_type_name != file_type or _shapes(after) != _shapes(before):
            raise ModelInvalid("The quantized file is not what it should be.")
        self._made[media_type] = [(target, after)]

    def _named_files(self, media_type: str) -> list[Path]:
        """Files of weights under names by which the quantizer finds all shards."""
        if self._made[media_type]:
            return [self._made[media_type][0][0]]
        parts = self._parts[media_type]
        paths = [self._store.blob_path(part.digest) for part in parts]
        if len(paths) == 1:
            return paths
        names = [f"model-{number:05}-of-{len(paths):05}.gguf" for number in range(1, len(paths) + 1)]
        folder = self._scratch.link(dict(zip(names, paths, strict=True)))
        return [folder / name for name in names]

    async def _install(self) -> AsyncGenerator[Progress, None]:
        new = await asyncio.to_thread(self._take_made)
        layers: list[Layer] = []
        for media_type, content in await asyncio.to_thread(self._plan):
            if isinstance(content, bytes):
                is_known = await asyncio.to_thread(self._store.has_blob, Digest.of(content))
                blob = await asyncio.to_thread(self._store.add_blob, [content])
            else:
                is_known, blob = content.digest not in new, content
            layers.append(Layer(media_type, blob.digest, blob.size))
            yield Progress(f"{'using existing' if is_known else 'creating new'} layer {blob.digest}")
        yield Progress("writing manifest")
        config_blob = await asyncio.to_thread(self._store.add_blob, [self._config().to_bytes()])
        config_layer = Layer(CONFIG_TYPE, config_blob.digest, config_blob.size)
        manifest = Manifest(config_layer, tuple(layers))
        await asyncio.to_thread(self._store.write_manifest, self._recipe.name, manifest)
        yield Progress("success")

    def _take_made(self) -> set[Digest]:
        """Make blobs of the files that were made. New weights replace those before; new adapters are added."""
        new = set()
        for media_type, made in self._made.items():
            parts = self._parts[media_type] if media_type == ADAPTER_LAYER else []
            for path, metadata in made:
                blob = self._store.blobs.take(path)
                parts.append(Part(path.name, blob.digest, blob.size, metadata))
                new.add(blob.digest)
            if made:
                self._parts[media_type] = parts
                made.clear()
        return new

    def _plan(self) -> list[tuple[str, bytes | Blob]]:
        """Every layer of the new model in order: files that are there, and texts that may not be."""
        planned: list[tuple[str, bytes | Blob]] = [
            (media_type, Blob(part.digest, part.size)) for media_type in FILE_LAYERS for part in self._parts[media_type]
        ]
        return planned + plan_texts(self._recipe, self._base)

    def _config(self) -> ModelConfig:
        projectors = [part.metadata for part in self._parts[PROJECTOR_LAYER]]
        base = self._base.config if self._base is not None else None
        return config_by_recipe(self._recipe, base, config_of(self._metadata(), *projectors))

    def _metadata(self, media_type: str = MODEL_LAYER) -> GgufMetadata:
        if self._made[media_type]:
            return self._made[media_type][0][1]
        return join_shards([part.metadata for part in self._parts[media_type]])

    def _stored(self, layer: Layer) -> Part:
        return Part(layer.digest.short, layer.digest, layer.size, self._store.metadata(layer.digest))

    def _read(self, files: Mapping[str, Digest]) -> list[Part]:
        parts = []
        for title, (path, size) in self._uploaded(files).items():
            with path.open("rb") as file:
                if file.read(len(_GGUF_MAGIC)) != _GGUF_MAGIC:
                    raise ModelInvalid("supplied file was not in GGUF format", file=title)
            digest = files[title]
            parts.append(Part(title, digest, size, self._store.metadata(digest)))
        return parts

    def _uploaded_blob(self, digest: Digest, field: str) -> Path:
        if not self._store.has_blob(digest):
            raise InvalidRequest(f"The file {digest} has not been uploaded.", field=field)
        return self._store.blob_path(digest)

    def _uploaded(self, files: Mapping[str, Digest]) -> dict[str, tuple[Path, int]]:
        """Where each file is, and its size. Raises InvalidRequest for what has not been uploaded."""
        for title, digest in files.items():
            if not self._store.has_blob(digest):
                raise InvalidRequest(f"The file {title[:200]} ({digest}) has not been uploaded.", field="files")
        return {
            title: (self._store.blob_path(digest), self._store.blobs.size(digest)) for title, digest in files.items()
        }


async def _tell(status: str, total: int, fractions: AsyncGenerator[float, None]) -> AsyncGenerator[Progress, None]:
    yield Progress(status, _NO_DIGEST, total, 0)
    async with contextlib.aclosing(fractions):
        async for fraction in fractions:
            yield Progress(status, _NO_DIGEST, total, int(fraction * total))


def _shapes(metadata: GgufMetadata) -> dict[str, Sequence[int]]:
    return {tensor.name: tensor.shape for tensor in metadata.tensors}
