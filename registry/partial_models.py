"""Models of which a part has been fetched: listed, and thrown away on request."""

from __future__ import annotations

from dataclasses import dataclass

from registry.errors import InvalidName, InvalidRequest, ModelInUse, ModelNotFound, StoreReadOnly
from registry.name import ModelName
from registry.partials import PartialStatus
from registry.store import ModelStore
from registry.unfinished import UnfinishedPull, WantedFile

_SHORTEST_DIGEST = 6


@dataclass(frozen=True, slots=True)
class PartialFile:
    """A file of a pull that has not come to its end."""

    key: str
    digest: str | None
    title: str | None
    size: int | None
    completed: int
    is_active: bool
    """Somebody is fetching it now."""


@dataclass(frozen=True, slots=True)
class PartialModel:
    """A pull that can be gone on with."""

    name: ModelName | None
    """None for a file that no pull wants any more."""
    files: tuple[PartialFile, ...]
    age_seconds: float

    @property
    def size(self) -> int | None:
        """None while the size of a file is not known."""
        sizes = [file.size for file in self.files]
        return None if None in sizes else sum(size or 0 for size in sizes)

    @property
    def completed(self) -> int:
        return sum(file.completed for file in self.files)

    @property
    def is_active(self) -> bool:
        return any(file.is_active for file in self.files)


def list_partial_models(store: ModelStore) -> list[PartialModel]:
    """Every pull that was begun and is not done, the latest first; then files that no pull wants. Blocks."""
    partials = {status.key: status for status in store.blobs.partials.all()}
    pulls = list(store.blobs.pulls.all())
    claimed = {file.key for pull in pulls for file in pull.files}
    models = [_of_pull(store, pull, partials) for pull in pulls]
    models += [_of_partial(store, status) for key, status in partials.items() if key not in claimed]
    return [model for model in models if model.completed]


def remove_partial(store: ModelStore, text: str) -> PartialModel:
    """Throw away what was fetched of a model, told by its name, or by a file's digest or its beginning. Blocks.

    Files that another unfinished pull wants stay. Raises ModelNotFound, or ModelInUse while somebody
    is fetching it.
    """
    models = list_partial_models(store)
    found = next((model for model in models if _is_meant(model, text)), None)
    if found is None:
        raise ModelNotFound(f"Nothing is kept of a download of {text!r}; `puna partials` lists what is.", model=text)
    if found.is_active:
        raise _in_use(text)
    if found.name is not None:
        store.blobs.pulls.forget(found.name)
    still_wanted = {file.key for pull in store.blobs.pulls.all() for file in pull.files}
    for file in found.files:
        if file.key not in still_wanted:
            _remove(store, file.key, text)
    return found


def _remove(store: ModelStore, key: str, text: str) -> None:
    lock = store.blobs.try_lock(key)
    if lock is None:
        raise _in_use(text)
    try:
        store.blobs.partials.remove(key)
    finally:
        lock.release()


def _in_use(text: str) -> ModelInUse:
    return ModelInUse(f"{text} is being downloaded; end that first, for example with `puna rm --force`.", model=text)


def _is_meant(model: PartialModel, text: str) -> bool:
    if model.name is not None:
        try:
            if model.name.folded == ModelName.parse(text).folded:
                return True
        except (InvalidName, InvalidRequest):
            pass
    wanted = text.lower().removeprefix("sha256:").removeprefix("sha256-")
    if len(wanted) < _SHORTEST_DIGEST:
        return False
    return any(
        (file.digest or "").removeprefix("sha256:").startswith(wanted) or file.key == text for file in model.files
    )


def _of_pull(store: ModelStore, pull: UnfinishedPull, partials: dict[str, PartialStatus]) -> PartialModel:
    files = tuple(_file(store, file, partials.get(file.key)) for file in pull.files)
    ages = [partials[file.key].age_seconds for file in pull.files if file.key in partials]
    return PartialModel(pull.name, files, min([pull.age_seconds, *ages]))


def _file(store: ModelStore, file: WantedFile, status: PartialStatus | None) -> PartialFile:
    is_here = file.digest is not None and store.blobs.has(file.digest)
    size = file.size if file.size is not None else status.facts.size if status else None
    completed = (size or 0) if is_here else status.completed if status else 0
    digest = str(file.digest) if file.digest else None
    return PartialFile(file.key, digest, file.title, size, completed, not is_here and _is_active(store, file.key))


def _of_partial(store: ModelStore, status: PartialStatus) -> PartialModel:
    facts = status.facts
    file = PartialFile(
        status.key, facts.digest, facts.title, facts.size, status.completed, _is_active(store, status.key)
    )
    return PartialModel(None, (file,), status.age_seconds)


def _is_active(store: ModelStore, key: str) -> bool:
    try:
        lock = store.blobs.try_lock(key)
    except StoreReadOnly:
        return False
    if lock is None:
        return True
    lock.release()
    return False
