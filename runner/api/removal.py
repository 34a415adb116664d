"""Removing a model, in every dialect: it is unloaded first, and what is in use goes only when forced."""

from __future__ import annotations

import asyncio

from registry.digest import Digest
from registry.errors import InvalidName, RegistryError
from registry.errors import ModelNotFound as NotInstalled
from registry.name import ModelName
from registry.store import ModelStore
from registry.stored_model import StoredModel
from runner.api.downloads import Downloads
from runner.errors import InvalidRequest, ModelInUse, ModelNotFound
from runner.model_lookup import find_model
from runner.supervisor.supervisor import Supervisor


class Remover:
    """What removing a model takes."""

    def __init__(self, store: ModelStore, supervisor: Supervisor, downloads: Downloads) -> None:
        self._store = store
        self._supervisor = supervisor
        self._downloads = downloads

    async def remove(self, wanted: str, *, is_forced: bool) -> None:
        """Unload a model and remove it; one that is in use only when forced, and then its users are told.

        A download of it counts as use. Raises InvalidRequest, ModelInUse, ModelNotFound or StoreReadOnly.
        """
        name = _parse(wanted)
        if await self._downloads.is_running_anywhere(name):
            if not is_forced:
                raise _in_use(name, "is being downloaded")
            await self._downloads.end(name)
            if not await asyncio.to_thread(is_installed, self._store, name):
                return
        model, weights = await asyncio.to_thread(_find, self._store, wanted)
        if weights is not None:
            if not is_forced and self._supervisor.is_answering(str(weights)):
                raise _in_use(model.name, "is answering")
            if is_forced:
                removed = ModelNotFound(f"{model.name.short} was removed while it was in use.", model=model.name.short)
                await self._supervisor.evict(str(weights), removed)
            else:
                await self._supervisor.unload(str(weights))
        await asyncio.to_thread(self._store.delete, model.name)


def is_installed(store: ModelStore, name: ModelName) -> bool:
    try:
        store.find(name)
    except NotInstalled:
        return False
    return True


def _parse(text: str) -> ModelName:
    try:
        return ModelName.parse(text)
    except InvalidName as error:
        raise InvalidRequest(f"invalid model name: {error.message}", "model") from None


def _in_use(name: ModelName, how: str) -> ModelInUse:
    way_out = 'wait for that to end, or end it with `puna rm --force` ("force": true)'
    return ModelInUse(f"{name.short} {how}; {way_out}.", model=name.short)


def _find(store: ModelStore, name: str) -> tuple[StoredModel, Digest | None]:
    """A model, and its weights if they go with it: if it has any, and no other name keeps them."""
    model = find_model(store, name)
    store.check_own(model.name)
    weights = _weights(model)
    keepers = [other for other in store.models() if other.name != model.name and _weights(other) == weights]
    return model, None if keepers else weights


def _weights(model: StoredModel) -> Digest | None:
    try:
        return model.model_digest
    except RegistryError:
        return None
