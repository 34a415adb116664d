"""The config blob of a new model: what its files say, what its base said, and what its recipe says over both."""

from __future__ import annotations

import dataclasses

from registry.gguf_metadata import GgufMetadata
from registry.manifest import ModelConfig
from registry.recipe import Recipe
from registry.requirement import parse_version

_KEPT = ("capabilities", "renderer", "parser", "requires", "requires_program")
"""What a model has of its base, whatever its files are."""


def config_of(metadata: GgufMetadata, *projectors: GgufMetadata) -> ModelConfig:
    """The config blob of a model, from the header of its weights and those of its projectors."""
    families = [metadata.architecture, *(projector.architecture for projector in projectors)]
    return ModelConfig(
        model_format="gguf",
        model_family=metadata.architecture,
        model_families=tuple(dict.fromkeys(families)),
        model_type=metadata.parameter_size,
        file_type=metadata.file_type_name,
        context_length=metadata.context_length or None,
        embedding_length=metadata.embedding_length or None,
    )


def config_by_recipe(recipe: Recipe, base: ModelConfig | None, files: ModelConfig) -> ModelConfig:
    """`files` is what the new model's own files give; it counts unless the base's are used as they are."""
    has_new_files = bool(recipe.quantize or recipe.files)
    config = files if base is None or has_new_files else base
    changes: dict[str, object] = {} if base is None else {name: getattr(base, name) for name in _KEPT}
    if recipe.renderer is not None:
        changes["renderer"] = recipe.renderer
    if recipe.parser is not None:
        changes["parser"] = recipe.parser
    if recipe.requires is not None:
        changes |= {"requires": str(parse_version(recipe.requires)), "requires_program": "puna"}
    return dataclasses.replace(config, **changes)  # type: ignore[arg-type]  # mypy joins the fields' types
