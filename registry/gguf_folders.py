"""Finds the models in folders of GGUF files: any folder, LM Studio's, and a Hugging Face cache."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from registry.digest import Digest
from registry.errors import InvalidName, InvalidRequest, ModelInvalid, RegistryError
from registry.file_naming import name_of_file, name_part, stem_of
from registry.found_models import Findings, FoundFile, FoundModel, Unusable
from registry.gguf_metadata import GgufMetadata, read_gguf
from registry.manifest import MODEL_LAYER, PROJECTOR_LAYER
from registry.name import HUB_HOST, ModelName
from registry.parts import check_projector, check_weights, join_shards
from registry.sources import quantization
from registry.sources.gguf_choice import ListedFile, Variant, choose_projector, is_projector, variants

_REPOSITORY = "models--"
_MAX_DEPTH = 12

Namer = Callable[[Variant, frozenset[str]], ModelName]
"""Names a model; the folded names that are taken already are given."""
_Group = tuple[Path, Sequence[str], Namer]
"""A folder, the relative paths of files in it that belong together, and what names the models they make."""


def is_hub_cache(folder: Path) -> bool:
    return any(folder.glob(f"{_REPOSITORY}*/snapshots"))


def find_in_folder(root: Path) -> Findings:
    """Every model of a folder and the folders in it, named like its file."""
    return _find((folder, names, _file_namer(folder.name)) for folder, names in _folders_of_ggufs(root))


def find_in_lm_studio(root: Path) -> Findings:
    """Every model of LM Studio's folder, `publisher/repository/file`, named as on the hub it came from."""

    def groups() -> Iterator[_Group]:
        for folder, names in _folders_of_ggufs(root):
            publisher, repository = (*folder.relative_to(root).parts, "", "")[:2]
            yield folder, names, _hub_namer(publisher, repository)

    return _find(groups())


def find_in_hub_cache(root: Path) -> Findings:
    """Every GGUF model of a Hugging Face cache; of a repository with several snapshots, the current one first."""

    def groups() -> Iterator[_Group]:
        for repository in sorted(root.glob(f"{_REPOSITORY}*")):
            owner, _, name = repository.name.removeprefix(_REPOSITORY).partition("--")
            seen: set[Path] = set()
            for snapshot in _snapshots(repository):
                found = {
                    path: path.resolve()
                    for folder, names in _folders_of_ggufs(snapshot)
                    for path in map(folder.joinpath, names)
                }
                # Snapshots share the files that did not change between them.
                new = [path.relative_to(snapshot).as_posix() for path, real in found.items() if real not in seen]
                seen.update(found.values())
                yield snapshot, new, _hub_namer(owner, name)

    return _find(groups())


def find_file(path: Path) -> Findings:
    """One GGUF file, with the shards beside it when it is one of several, and its projector."""
    beside = dict(_folders_of_ggufs(path.parent, max_depth=0)).get(path.parent, [])
    listed = _listed(path.parent, beside)
    wanted = {path.name}
    for variant in variants(listed):
        shards = {file.name for file in variant.files}
        if path.name in shards:
            wanted |= shards
            wanted |= {file.name for file in _projectors_for(variant, listed)}
    return _find([(path.parent, sorted(wanted), _file_namer(path.parent.name))])


def _find(groups: Iterable[_Group]) -> Findings:
    findings = Findings()
    for folder, names, namer in groups:
        taken = frozenset(model.name.folded for model in findings.models)
        findings += _find_together(folder, names, namer, taken)
    return findings


def _folders_of_ggufs(root: Path, max_depth: int = _MAX_DEPTH) -> Iterator[tuple[Path, list[str]]]:
    """Folders that hold GGUF files, in order, each with the files' names. Hidden folders are passed over."""
    for place, folders, files in os.walk(root):
        depth = len(Path(place).relative_to(root).parts)
        folders[:] = sorted(one for one in folders if not one.startswith(".")) if depth < max_depth else []
        names = sorted(one for one in files if one.lower().endswith(".gguf") and not one.startswith("."))
        if names:
            yield Path(place), names


def _listed(folder: Path, names: Sequence[str]) -> list[ListedFile]:
    found = []
    for name in names:
        # It may be gone since, or be a link to nowhere.
        with contextlib.suppress(OSError):
            status = (folder / name).stat()
            if stat.S_ISREG(status.st_mode):
                found.append(ListedFile(Path(name).as_posix(), status.st_size))
    return found


def _find_together(folder: Path, names: Sequence[str], namer: Namer, taken: frozenset[str]) -> Findings:
    """The models among files that belong together; the paths in `names` are relative to `folder`."""
    listed = _listed(folder, names)
    models: list[FoundModel] = []
    unusable: list[Unusable] = []
    for variant in variants(listed):
        first = folder / variant.files[0].path
        try:
            if variant.missing:
                raise InvalidRequest(
                    f"{variant.missing} of its {len(variant.files) + variant.missing} shards are missing."
                )
            files = [*_weights(folder, variant), *_projector(folder, listed, variant)]
        except (RegistryError, OSError) as error:
            reason = error.message if isinstance(error, RegistryError) else f"It cannot be read ({error.strerror})."
            unusable.append(Unusable(first, reason))
            continue
        name = namer(variant, taken)
        taken |= {name.folded}
        models.append(FoundModel(name, tuple(files)))
    return Findings(tuple(models), tuple(unusable))


def _weights(folder: Path, variant: Variant) -> list[FoundFile]:
    files = [_file(MODEL_LAYER, folder / file.path, read_gguf(folder / file.path)) for file in variant.files]
    # What the headers say counts, and not the numbers in the names.
    files.sort(key=lambda file: (file.metadata and file.metadata.shard) or (0, 0))
    check_weights(join_shards([file.metadata for file in files if file.metadata is not None]))
    return files


def _projector(folder: Path, listed: Sequence[ListedFile], variant: Variant) -> list[FoundFile]:
    chosen = choose_projector(_projectors_for(variant, listed), variant.files[0])
    if chosen is None:
        return []
    path = folder / chosen.path
    try:
        metadata = read_gguf(path)
        check_projector(metadata)
    except RegistryError as error:
        raise ModelInvalid(f"Its projector {chosen.name} cannot be used. {error.message}") from None
    return [_file(PROJECTOR_LAYER, path, metadata)]


def _projectors_for(variant: Variant, listed: Sequence[ListedFile]) -> list[ListedFile]:
    """Those that may be this model's: where files of several models lie together, only those of its name."""
    found = [file for file in listed if is_projector(file)]
    bases = {_base(other) for other in variants(listed)}
    return found if len(bases) == 1 else [file for file in found if _base(variant) in _plain(file.name)]


def _base(variant: Variant) -> str:
    """What the quantizations of one model have in common in their names."""
    stem = stem_of(variant.files[0].name)
    found = quantization.find(stem)
    end = stem.upper().rfind(found) if found else -1
    return _plain(stem if end < 0 else stem[:end])


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", text.lower())


def _file(media_type: str, path: Path, metadata: GgufMetadata) -> FoundFile:
    real = path.resolve()
    return FoundFile(media_type, path, real.stat().st_size, _promised(path, real), metadata)


def _promised(path: Path, real: Path) -> Digest | None:
    """The digest that the cache of a hub names a file by; small files there have a shorter one, of another kind."""
    if real == path or real.parent.name != "blobs":
        return None
    try:
        return Digest(real.name)
    except InvalidRequest:
        return None


def _file_namer(folder: str) -> Namer:
    def name(variant: Variant, taken: frozenset[str]) -> ModelName:
        file_name = variant.files[0].name
        choices = ("", folder, *(str(number) for number in range(2, len(taken) + 3)))
        names = (name_of_file(file_name, before=before) for before in choices)
        return next(found for found in names if found.folded not in taken)

    return name


def _hub_namer(owner: str, repository: str) -> Namer:
    def name(variant: Variant, taken: frozenset[str]) -> ModelName:
        stem = name_part(stem_of(variant.files[0].name))
        for tag in (variant.quantization, stem):
            try:
                found = ModelName(HUB_HOST, owner, repository, tag or stem)
            except InvalidName:
                break
            if found.folded not in taken:
                return found
        return _file_namer(repository)(variant, taken)

    return name


def _snapshots(repository: Path) -> list[Path]:
    """The one that `main` means, then the others, newest first."""
    try:
        current = (repository / "refs" / "main").read_text(encoding="ascii", errors="replace")[:64].strip()
    except OSError:
        current = ""
    found = [path for path in (repository / "snapshots").glob("*") if path.is_dir()]
    return sorted(found, key=lambda path: (path.name != current, -path.stat().st_mtime, path.name))
