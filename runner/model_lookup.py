"""Finds the installed model that a request names, and sees that it can be used."""

from __future__ import annotations

from registry.errors import InvalidName, ModelNotFound
from registry.name import ModelName
from registry.requirement import check_requirement
from registry.store import ModelStore
from registry.stored_model import StoredModel
from runner.errors import InvalidRequest
from runner.errors import ModelNotFound as NoSuchModel


def find_model(store: ModelStore, name: str) -> StoredModel:
    """The installed model of that name. Raises InvalidRequest or ModelNotFound; reads files."""
    if not name.strip():
        raise InvalidRequest("model is required", "model")
    try:
        parsed = ModelName.parse(name)
    except InvalidName as error:
        raise InvalidRequest(f"invalid model name: {error.message}", "model") from None
    try:
        return store.find(parsed)
    except ModelNotFound:
        raise NoSuchModel(f"model '{name}' not found, try pulling it first", model=name) from None


def usable_model(store: ModelStore, name: str) -> StoredModel:
    """As `find_model`; raises ModelCorrupt as well, and Unsupported for one that a later version is needed for.

    Hashes files that have changed.
    """
    model = find_model(store, name)
    model.verify_unchanged()
    check_requirement(model.config.required_puna)
    return model
