"""Builds a model from another model or from an uploaded GGUF file."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath, PureWindowsPath

from registry.blobs import Blob
from registry.digest import Digest
from registry.errors import InvalidRequest, ModelInvalid, Unsupported
from registry.gguf_metadata import GgufMetadata
from registry.manifest import (
    ADAPTER_LAYER,
    CONFIG_TYPE,
    LICENSE_LAYER,
    MESSAGES_LAYER,
    MODEL_LAYER,
    PARAMS_LAYER,
    PROJECTOR_LAYER,
    SYSTEM_LAYER,
    TEMPLATE_LAYER,
    Layer,
    Manifest,
    ModelConfig,
)
from registry.name import ModelName
from registry.parameters import REMOVED, ParameterValue, check_parameter
from registry.progress import Progress
from registry.store import ModelStore, StoredModel
from registry.template_language import is_go_template

_PROJECTOR_ARCHITECTURES = frozenset({"clip"})


@dataclass(frozen=True)
class Recipe:
    """A model to be made: one base, and what is said over it. None and empty leave the base's."""

    name: ModelName
    from_model: ModelName | None = None
    files: Mapping[str, Digest] = field(default_factory=dict)
    """Relative path of each file, and the digest under which it was uploaded."""
    template: str | None = None
    """Jinja; replaces."""
    system: str | None = None
    """Replaces."""
    parameters: Mapping[str, object] = field(default_factory=dict)
    """Merged over the base's."""
    messages: Sequence[tuple[str, str]] = ()
    """Role and text; replace."""
    licenses: Sequence[str] = ()
    """Added."""


async def create_model(store: ModelStore, recipe: Recipe) -> AsyncGenerator[Progress]:
    """Make a model, telling each step; the last is `success`. Disk work runs in threads.

    Raises InvalidRequest, Unsupported, ModelNotFound or ModelInvalid before anything is installed.
    """
    check_recipe(recipe)
    if recipe.from_model is not None:
        base = await asyncio.to_thread(store.find, recipe.from_model)
        config = base.config
    else:
        yield Progress("parsing GGUF")
        base = None
        config = await asyncio.to_thread(_read_file, store, recipe.files)
    layers: list[Layer] = []
    for media_type, content in await asyncio.to_thread(_plan, store, base, recipe):
        if isinstance(content, bytes):
            is_known = await asyncio.to_thread(store.has_blob, Digest.of(content))
            blob = await asyncio.to_thread(store.add_blob, [content])
        else:
            is_known, blob = True, content
        layers.append(Layer(media_type, blob.digest, blob.size))
        yield Progress(f"{'using existing' if is_known else 'creating new'} layer {blob.digest}")
    yield Progress("writing manifest")
    config_blob = await asyncio.to_thread(store.add_blob, [config.to_bytes()])
    config_layer = Layer(CONFIG_TYPE, config_blob.digest, config_blob.size)
    await asyncio.to_thread(store.write_manifest, recipe.name, Manifest(config_layer, tuple(layers)))
    yield Progress("success")


def check_recipe(recipe: Recipe) -> None:
    """Raises InvalidRequest or Unsupported for what can be told without looking at the store."""
    if recipe.from_model is None and not recipe.files:
        raise InvalidRequest("neither 'from' or 'files' was specified")
    if recipe.from_model is not None and recipe.files:
        raise InvalidRequest("A model is made from another model or from a file, not from both.", field="files")
    for path in recipe.files:
        posix, windows = PurePosixPath(path), PureWindowsPath(path)
        is_anchored = posix.is_absolute() or windows.anchor
        if not path or is_anchored or ".." in posix.parts or ".." in windows.parts:
            raise InvalidRequest("file path must be relative", field="files")
    if len(recipe.files) > 1:
        raise Unsupported(
            "A model is made of exactly one GGUF file; shards, projectors and adapters are not supported yet.",
            field="files",
        )
    if recipe.template is not None and is_go_template(recipe.template):
        raise Unsupported(
            "The template is written in Go's template language, which is not supported yet; write it in Jinja.",
            field="template",
        )
    _checked_parameters(recipe.parameters)


def config_of(metadata: GgufMetadata) -> ModelConfig:
    """The config blob of a model that is one GGUF file."""
    return ModelConfig(
        model_format="gguf",
        model_family=metadata.architecture,
        model_families=(metadata.architecture,),
        model_type=metadata.parameter_size,
        file_type=metadata.file_type_name,
        context_length=metadata.context_length or None,
        embedding_length=metadata.embedding_length or None,
    )


def check_is_model(metadata: GgufMetadata) -> None:
    """Raises Unsupported for GGUF files that are a part of a model, or something else."""
    kind = metadata.values.get("general.type", "model")
    if kind == "mmproj" or metadata.architecture in _PROJECTOR_ARCHITECTURES:
        raise Unsupported("This file is a projector, not a model; models with projectors are not supported yet.")
    if kind != "model":
        raise Unsupported(f"This file is of the type {kind!a}, not a model, which is not supported yet.")
    shards = metadata.values.get("split.count", 0)
    if isinstance(shards, int) and shards > 1:
        raise Unsupported(f"This file is one of {shards} shards of a model, which is not supported yet.")
    if metadata.block_count == 0:
        raise ModelInvalid(f"{metadata.architecture}.block_count is missing.")


def _read_file(store: ModelStore, files: Mapping[str, Digest]) -> ModelConfig:
    digest = next(iter(files.values()))
    if not store.has_blob(digest):
        raise InvalidRequest(f"The file {digest} has not been uploaded.", field="files")
    with store.blob_path(digest).open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ModelInvalid("supplied file was not in GGUF format")
    metadata = store.metadata(digest)
    check_is_model(metadata)
    return config_of(metadata)


def _plan(store: ModelStore, base: StoredModel | None, recipe: Recipe) -> list[tuple[str, bytes | Blob]]:
    """Every layer of the new model in order: blobs that are there, and texts that may not be."""
    planned: list[tuple[str, bytes | Blob]] = []
    if base is None:
        planned.extend((MODEL_LAYER, Blob(digest, store.blobs.size(digest))) for digest in recipe.files.values())
    else:
        replaced = _replaced_layers(recipe)
        kept = [layer for layer in base.manifest.layers if layer.media_type not in replaced]
        kept.sort(key=lambda layer: layer.media_type not in (MODEL_LAYER, PROJECTOR_LAYER, ADAPTER_LAYER))
        planned.extend((layer.media_type, Blob(layer.digest, layer.size)) for layer in kept)
    if recipe.template is not None:
        planned.append((TEMPLATE_LAYER, recipe.template.encode()))
    if recipe.system is not None:
        planned.append((SYSTEM_LAYER, recipe.system.encode()))
    known = {layer.digest for layer in base.manifest.layers} if base else set()
    licenses = [text.encode() for text in recipe.licenses]
    planned.extend((LICENSE_LAYER, text) for text in licenses if Digest.of(text) not in known)
    merged = {**(base.parameters if base else {}), **_checked_parameters(recipe.parameters)}
    if recipe.parameters and merged:
        planned.append((PARAMS_LAYER, _json(merged)))
    if recipe.messages:
        turns = [{"role": role, "content": content} for role, content in recipe.messages]
        planned.append((MESSAGES_LAYER, _json(turns)))
    return planned


def _replaced_layers(recipe: Recipe) -> set[str]:
    said = {
        TEMPLATE_LAYER: recipe.template is not None,
        SYSTEM_LAYER: recipe.system is not None,
        PARAMS_LAYER: bool(recipe.parameters),
        MESSAGES_LAYER: bool(recipe.messages),
    }
    return {media_type for media_type, is_said in said.items() if is_said}


def _checked_parameters(parameters: Mapping[str, object]) -> dict[str, ParameterValue]:
    return {
        name: check_parameter(name, value)
        for name, value in parameters.items()
        if value is not None and name not in REMOVED
    }


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
