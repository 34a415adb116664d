"""The layers of a new model beside its files: template, system text, licences, parameters, messages."""

from __future__ import annotations

import json
from collections.abc import Mapping

from registry.blobs import Blob
from registry.digest import Digest
from registry.manifest import (
    FILE_LAYERS,
    LICENSE_LAYER,
    MESSAGES_LAYER,
    PARAMS_LAYER,
    SYSTEM_LAYER,
    TEMPLATE_LAYER,
)
from registry.parameters import DRAFT_PARAMETER, ParameterValue
from registry.recipe import Recipe, checked_parameters
from registry.stored_model import StoredModel


def plan_texts(recipe: Recipe, base: StoredModel | None) -> list[tuple[str, bytes | Blob]]:
    """The layers beside the files: those of the base that are kept, and what the recipe says."""
    planned: list[tuple[str, bytes | Blob]] = []
    inherited = base.parameters if base is not None else {}
    parameters = _parameters(recipe, inherited)
    if base is not None:
        gone = {*FILE_LAYERS, *_replaced_layers(recipe)}
        if parameters != inherited:
            gone.add(PARAMS_LAYER)
        kept = [layer for layer in base.manifest.layers if layer.media_type not in gone]
        planned.extend((layer.media_type, Blob(layer.digest, layer.size)) for layer in kept)
    if recipe.template is not None:
        planned.append((TEMPLATE_LAYER, recipe.template.encode()))
    if recipe.system is not None:
        planned.append((SYSTEM_LAYER, recipe.system.encode()))
    known = {layer.digest for layer in base.manifest.layers} if base else set()
    licenses = [text.encode() for text in recipe.licenses]
    planned.extend((LICENSE_LAYER, text) for text in licenses if Digest.of(text) not in known)
    if parameters and parameters != inherited:
        planned.append((PARAMS_LAYER, _json(parameters)))
    if recipe.messages:
        turns = [{"role": role, "content": content} for role, content in recipe.messages]
        planned.append((MESSAGES_LAYER, _json(turns)))
    return planned


def _parameters(recipe: Recipe, inherited: Mapping[str, ParameterValue]) -> dict[str, ParameterValue]:
    # Files of a draft model go before a name that the base has for one.
    kept = {name: value for name, value in inherited.items() if name != DRAFT_PARAMETER or not recipe.draft_files}
    return {**kept, **checked_parameters(recipe.parameters)}


def _replaced_layers(recipe: Recipe) -> set[str]:
    said = {
        TEMPLATE_LAYER: recipe.template is not None,
        SYSTEM_LAYER: recipe.system is not None,
        MESSAGES_LAYER: bool(recipe.messages),
    }
    return {media_type for media_type, is_said in said.items() if is_said}


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
