"""Gives a model back as plain files: its GGUFs and a Modelfile that makes it again."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from registry.blobs import PIECE_BYTES
from registry.digest import Digest
from registry.errors import DiskFull, InvalidRequest, ModelCorrupt
from registry.file_naming import file_stem
from registry.linking import Way, clone
from registry.manifest import (
    ADAPTER_LAYER,
    DRAFT_LAYER,
    FILE_LAYERS,
    MODEL_LAYER,
    PROJECTOR_LAYER,
    TEXT_LAYERS,
    Layer,
)
from registry.modelfile import Modelfile
from registry.modelfile_of import modelfile_of
from registry.sources.gguf_choice import shard_name
from registry.stored_model import StoredModel

MODELFILE = "Modelfile"
_TOLD = {*FILE_LAYERS, *TEXT_LAYERS}
"""The layers that a Modelfile can tell."""

Tell = Callable[[str, int, int], None]
"""What is being done, bytes done, bytes in all."""


@dataclass(frozen=True, slots=True)
class Export:
    """What was written."""

    files: tuple[Path, ...]
    """The weights first, the Modelfile last."""
    way: Way
    """How the large files were made; a clone shares its blocks with the store, and is independent all the same."""
    left_out: tuple[str, ...]
    """What the model has and a Modelfile cannot tell."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """The files of an export: their names, and which blob each is."""

    files: tuple[tuple[str, Layer], ...]
    modelfile: Modelfile
    left_out: tuple[str, ...]


def export_model(model: StoredModel, folder: Path, tell: Tell, *, force: bool = False) -> Export:
    """Write a model's files into `folder`, which is made if need be. Blocks.

    Files are clones where the file system can, else copies, verified on the way; never links, so that
    they stay what they are whatever happens to the store. All get their names at the end, so that none
    is ever there in part. Raises InvalidRequest when there are files of those names already, unless
    forced; or the folder cannot be written, ModelCorrupt for a damaged model, DiskFull.
    """
    plan = _plan(model)
    names = [*(name for name, _ in plan.files), MODELFILE]
    for _, layer in plan.files:
        model.store.blobs.verify_unchanged(layer.digest, layer.size)
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    _refuse_taken(folder, names, force=force)
    partials: dict[str, Path] = {name: folder / f".{secrets.token_hex(8)}.part" for name in names}
    ways = set()
    try:
        with _writing(folder):
            for name, layer in plan.files:
                ways.add(_write(model, layer, partials[name], partial(tell, f"writing {name}")))
            _write_text(partials[MODELFILE], _text(model, plan))
            for name in names:
                _publish(partials[name], folder / name, force=force)
    finally:
        for unfinished in partials.values():
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)
    return Export(tuple(folder / name for name in names), max(ways, key=lambda way: way is Way.COPY), plan.left_out)


def _plan(model: StoredModel) -> _Plan:
    stem = file_stem(model.name)
    weights = model.weights
    manifest = model.manifest
    named = {
        MODEL_LAYER: [f"{stem}.gguf"]
        if len(weights) == 1
        else [shard_name(stem, number, len(weights)) for number in range(1, len(weights) + 1)],
        PROJECTOR_LAYER: _numbered(f"mmproj-{stem}", len(manifest.of_type(PROJECTOR_LAYER))),
        ADAPTER_LAYER: _numbered(f"{stem}-adapter", len(manifest.of_type(ADAPTER_LAYER))),
        DRAFT_LAYER: _draft_names(f"{stem}-draft", len(manifest.of_type(DRAFT_LAYER))),
    }
    modelfile, untold = modelfile_of(
        model, {media_type: [f"./{name}" for name in names] for media_type, names in named.items()}
    )
    others_left = [layer.media_type for layer in manifest.layers if layer.media_type not in _TOLD]
    files = [pair for kind, names in named.items() for pair in zip(names, manifest.of_type(kind), strict=True)]
    return _Plan(tuple(files), modelfile, (*untold, *dict.fromkeys(f"the layer {one}" for one in others_left)))


def _numbered(stem: str, count: int) -> list[str]:
    return [f"{stem}.gguf" if number == 1 else f"{stem}-{number}.gguf" for number in range(1, count + 1)]


def _draft_names(stem: str, count: int) -> list[str]:
    """Several files of a draft model are its shards."""
    return _numbered(stem, count) if count < 2 else [shard_name(stem, number, count) for number in range(1, count + 1)]


def _text(model: StoredModel, plan: _Plan) -> str:
    lines = [f"# {model.name.short}, as it was exported. To make it again here: puna create NAME -f {MODELFILE}"]
    lines += [f"# Left out, because a Modelfile cannot tell it: {one!a}" for one in plan.left_out]
    return "\n".join(lines) + f"\n\n{plan.modelfile.render()}"


def _refuse_taken(folder: Path, names: Sequence[str], *, force: bool) -> None:
    taken = [name for name in names if os.path.lexists(folder / name)]
    if taken and not force:
        raise InvalidRequest(f"There is a {taken[0]} in {folder} already; choose another folder, or --force.")
    for name in taken:
        if not (folder / name).is_file():
            raise InvalidRequest(f"{folder / name} is in the way, and is no file.")


def _write(model: StoredModel, layer: Layer, target: Path, tell: Callable[[int, int], None]) -> Way:
    source = model.store.blob_path(layer.digest)
    if clone(source, target):
        tell(layer.size, layer.size)
        return Way.CLONE
    free = shutil.disk_usage(target.parent).free
    if free < layer.size:
        raise DiskFull(
            f"The file needs {layer.size} bytes, and {free} are free where it is to go.", needed=layer.size, free=free
        )
    hasher = hashlib.sha256()
    done = 0
    with target.open("xb", buffering=0) as written:
        for piece in _pieces(source):
            hasher.update(piece)
            written.write(piece)
            done += len(piece)
            tell(done, layer.size)
        os.fsync(written.fileno())
    if Digest(hasher.hexdigest()) != layer.digest:
        raise ModelCorrupt(f"The file of {layer.digest} is damaged, as its digest shows.", digest=str(layer.digest))
    return Way.COPY


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while piece := file.read(PIECE_BYTES):
            yield piece


def _write_text(path: Path, text: str) -> None:
    with path.open("xb") as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())


def _publish(finished: Path, target: Path, *, force: bool) -> None:
    """Give a finished file its name; without `force` never over another one, where the system can tell."""
    if not force:
        try:
            os.link(finished, target)
        except FileExistsError:
            raise InvalidRequest(f"{target} has just been written by somebody else.") from None
        except OSError:
            pass
        else:
            return
    finished.replace(target)


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Turn the failures of the file system that holds the folder into errors with a name."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DiskFull(f"The disk that holds {folder} is full.") from error
        raise InvalidRequest(f"{error.filename or folder} cannot be written ({error.strerror}).") from error
