"""Fetches again what is damaged of a model, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

from registry.digest import Digest
from registry.errors import ModelCorrupt, RegistryError, SourceError
from registry.name import ModelName
from registry.progress import Progress
from registry.pull import Puller, make_config
from registry.sizes import shown_size
from registry.sources.resolved import Find, ResolvedFile, ResolvedModel
from registry.store import ModelStore
from registry.stored_model import StoredModel
from registry.verify import FileVerdict, Verification, verify


async def repair(
    store: ModelStore, puller: Puller, name: ModelName, finds: Sequence[Find]
) -> AsyncGenerator[Progress | Verification]:
    """Verify a model, fetch what is damaged, and tell what was found before; the last Progress is `success`.

    `finds` ask the places where the model may be had, in order; a file is taken from the first that has
    the very same bytes. Raises ModelNotFound, ModelCorrupt for a file that is nowhere to be had, or what
    a source raises; what is sound stays.
    """
    model = await asyncio.to_thread(store.find, name)
    found: Verification | None = None
    async with contextlib.aclosing(verify(store, [model])) as steps:
        async for step in steps:
            if isinstance(step, Verification):
                found = step
            yield step
    assert found is not None, "verifying ends with what was found"
    if found.unsound:
        yield Progress(_summary(found.unsound))
        try:
            files = await _find_again(model, {verdict.digest for verdict in found.unsound}, finds)
        except RegistryError as error:
            raise _lost_original(model, found.unsound) or error from error
        async with contextlib.aclosing(puller.fetch_files(model.name, list(files.values()))) as fetching:
            async for progress in fetching:
                yield progress
        lost = [verdict.digest for verdict in found.unsound if verdict.digest not in files]
        if model.manifest.config.digest in lost and await asyncio.to_thread(_make_config, store, model):
            lost.remove(model.manifest.config.digest)
        if lost:
            raise _lost_original(model, [one for one in found.unsound if one.digest in lost]) or ModelCorrupt(
                f"{model.name.short} cannot be repaired: its file {lost[0].short} is nowhere to be had any more. "
                "Remove the model with `puna rm`, and create or pull it again.",
                model=model.name.short,
                digest=str(lost[0]),
            )
    yield Progress("success")


def _lost_original(model: StoredModel, lost: Sequence[FileVerdict]) -> ModelCorrupt | None:
    """The error for a model that nobody has, and that was used where another program kept it."""
    in_place = next((one for one in lost if one.in_place), None)
    if in_place is None:
        return None
    return ModelCorrupt(
        f"{model.name.short} uses a file where another program keeps it, which is {in_place.state.value} there, and no "
        "source that answers has it. Put it back as it was, or remove the model with `puna rm` and get it anew.",
        model=model.name.short,
        digest=str(in_place.digest),
        in_place=True,
    )


def _make_config(store: ModelStore, model: StoredModel) -> bool:
    """Make the config anew, if it is one that was made here of what the weights say."""
    content = make_config(store, model.manifest.layers)
    if content is None or Digest.of(content) != model.manifest.config.digest:
        return False
    store.add_blob([content])
    return True


def _summary(unsound: Sequence[FileVerdict]) -> str:
    damaged = sum(verdict.damaged_bytes for verdict in unsound)
    total = sum(verdict.size for verdict in unsound)
    count = "1 file is" if len(unsound) == 1 else f"{len(unsound)} files are"
    return f"{count} damaged: fetching {shown_size(damaged)} of {shown_size(total)}"


def _with_digests(found: ResolvedModel, model: StoredModel) -> list[ResolvedFile]:
    """Files that a source knows no digest of are taken for the model's, in their order: what comes is verified."""
    files = []
    layers = model.manifest.all_layers
    for media_type in dict.fromkeys(file.media_type for file in found.files):
        here = [layer for layer in layers if layer.media_type == media_type]
        there = [file for file in found.files if file.media_type == media_type]
        if len(here) == len(there):
            there = [
                replace(file, digest=layer.digest, size=layer.size) if file.digest is None else file
                for file, layer in zip(there, here, strict=True)
            ]
        files += there
    return files


async def _find_again(model: StoredModel, wanted: set[Digest], finds: Sequence[Find]) -> dict[Digest, ResolvedFile]:
    """Where the very same bytes can be had. Raises what the last source raised, when none could be asked."""
    files: dict[Digest, ResolvedFile] = {}
    error: RegistryError | None = None
    has_answer = False
    for find in finds:
        if wanted <= files.keys():
            break
        try:
            found = await find(lambda notice: None)
        except RegistryError as problem:
            error = problem
            continue
        has_answer = True
        for file in _with_digests(found, model):
            if file.digest in wanted and file.digest not in files:
                files[file.digest] = file
    if not has_answer:
        raise error or SourceError("Nobody knows where this model came from.")
    return files
