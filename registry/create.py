"""Builds a model from another model, from uploaded GGUF files, or from a checkpoint."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator

from registry.adapter_files import adapter_checkpoints
from registry.blobs import Blob
from registry.created_config import config_by_recipe, config_of
from registry.digest import Digest
from registry.file_types import check_quantizable_to
from registry.ingredients import Ingredients
from registry.making import Making
from registry.manifest import CONFIG_TYPE, DRAFT_LAYER, MODEL_LAYER, Layer, Manifest, ModelConfig
from registry.progress import Progress
from registry.recipe import Recipe, check_recipe
from registry.scratch import Scratch
from registry.store import ModelStore
from registry.text_layers import plan_texts
from registry.workshop import Workshop


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
        for step in _Creation(store, recipe, workshop, scratch).steps():
            async with contextlib.aclosing(step):
                async for progress in step:
                    yield progress
    finally:
        await asyncio.to_thread(scratch.remove)


class _Creation:
    """One creation: its steps, and what they have come to."""

    def __init__(self, store: ModelStore, recipe: Recipe, workshop: Workshop | None, scratch: Scratch) -> None:
        self._store = store
        self._recipe = recipe
        self._ingredients = Ingredients(store, recipe)
        self._making = Making(self._ingredients, workshop, scratch)

    def steps(self) -> Iterator[AsyncGenerator[Progress, None]]:
        """In order; each is asked for when the one before it has come to its end."""
        recipe, making = self._recipe, self._making
        if recipe.is_checkpoint:
            yield making.convert(recipe.files)
        yield self._gather()
        for number, files in enumerate(adapter_checkpoints(recipe.adapters)):
            yield making.convert_adapter(number, files)
        if recipe.calibration is not None:
            yield making.calibrate(recipe.calibration)
        for media_type, file_type in ((MODEL_LAYER, recipe.quantize), (DRAFT_LAYER, recipe.draft_quantize)):
            if file_type:
                yield making.quantize(media_type, check_quantizable_to(file_type))
        yield self._install()

    async def _gather(self) -> AsyncGenerator[Progress, None]:
        recipe, ingredients = self._recipe, self._ingredients
        await asyncio.to_thread(ingredients.find_models)
        if not recipe.is_checkpoint and (recipe.files or recipe.adapters or recipe.draft_files):
            yield Progress("parsing GGUF")
        await asyncio.to_thread(ingredients.gather)
        if recipe.imatrix is not None:
            matrix = await asyncio.to_thread(ingredients.uploaded_one, recipe.imatrix, "imatrix")
            await asyncio.to_thread(self._making.take_matrix, matrix)

    async def _install(self) -> AsyncGenerator[Progress, None]:
        new = await asyncio.to_thread(self._ingredients.store_made)
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
        config = await asyncio.to_thread(self._config)
        config_blob = await asyncio.to_thread(self._store.add_blob, [config.to_bytes()])
        config_layer = Layer(CONFIG_TYPE, config_blob.digest, config_blob.size)
        manifest = Manifest(config_layer, tuple(layers))
        await asyncio.to_thread(self._store.write_manifest, self._recipe.name, manifest)
        yield Progress("success")

    def _plan(self) -> list[tuple[str, bytes | Blob]]:
        """Every layer of the new model in order: files that are there, and texts that may not be."""
        return [*self._ingredients.layers(), *plan_texts(self._recipe, self._ingredients.base)]

    def _config(self) -> ModelConfig:
        ingredients = self._ingredients
        base = ingredients.base.config if ingredients.base is not None else None
        return config_by_recipe(self._recipe, base, config_of(ingredients.metadata(), *ingredients.projectors()))
