"""Which files on this machine somebody means who names a file or a folder as a model."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from cli.errors import WrongUsage

_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf", re.IGNORECASE)
_WEIGHTS = ("model*.safetensors", "*.safetensors")
"""What the weights of a checkpoint are called, best first: some repositories have them in two ways."""
_ADAPTER_CONFIG = "adapter_config.json"
_BESIDE_WEIGHTS = ("*.json", "*/config.json", "chat_template.jinja", "tokenizer.model", "vocab.txt", "merges.txt")


def model_files(path: Path) -> dict[str, Path]:
    """Every file of the model at `path`, by its name below the model's folder.

    A file alone, with the other shards when it is one; of a folder the checkpoint, or else the one
    GGUF model in it with its projectors. Raises WrongUsage when it is not clear what is meant.
    """
    if path.is_file():
        return {shard.name: shard for shard in _with_shards(path)}
    if not path.is_dir():
        raise WrongUsage(f"There is no file {path}.")
    found = _checkpoint(path) or _gguf_files(path)
    for name, file in found.items():
        _check_stays_inside(path, name, file)
    return found


def adapter_files(path: Path) -> dict[str, Path]:
    """Every file of the adapter at `path`: one of GGUF, or safetensors (the file or its folder) and what tells of them.

    Raises WrongUsage when it is not clear what is meant.
    """
    folder = path if path.is_dir() else path.parent
    if path.is_dir():
        names = ["adapter_model.safetensors"] if (path / "adapter_model.safetensors").is_file() else []
        names = names or sorted(file.name for file in path.glob("*.safetensors"))
        if len(names) != 1:
            raise WrongUsage(f"The folder {path} holds no adapter_model.safetensors; name the adapter's file itself.")
    elif not is_checkpoint([path.name]):
        return model_files(path)
    else:
        names = [path.name]
    found = {name: folder / name for name in (*names, _ADAPTER_CONFIG)}
    for name, file in found.items():
        if not file.is_file():
            raise WrongUsage(f"There is no file {file}{', which tells of the adapter' * (name == _ADAPTER_CONFIG)}.")
        _check_stays_inside(folder, name, file)
    return found


def is_checkpoint(names: Iterable[str]) -> bool:
    """Whether files are weights that have to be converted."""
    return any(name.lower().endswith(".safetensors") for name in names)


def _with_shards(file: Path) -> list[Path]:
    match = _SHARD.fullmatch(file.name)
    if match is None:
        return [file]
    prefix, _, count = match.groups()
    names = [f"{prefix}-{number:05}-of-{count}.gguf" for number in range(1, int(count) + 1)]
    missing = [name for name in names if not (file.parent / name).is_file()]
    if missing:
        raise WrongUsage(f"{file} is one of {int(count)} parts of a model, and {missing[0]} is not beside it.")
    return [file.parent / name for name in names]


def _checkpoint(folder: Path) -> dict[str, Path]:
    weights = next((found for pattern in _WEIGHTS if (found := sorted(folder.glob(pattern)))), [])
    if not weights:
        return {}
    others = [file for pattern in _BESIDE_WEIGHTS for file in sorted(folder.glob(pattern)) if file.is_file()]
    return {file.relative_to(folder).as_posix(): file for file in (*weights, *others)}


def _gguf_files(folder: Path) -> dict[str, Path]:
    found = sorted(file for file in folder.iterdir() if file.suffix.lower() == ".gguf")
    projectors = [file for file in found if "mmproj" in file.name.lower()]
    models = [file for file in found if file not in projectors]
    if not models:
        raise WrongUsage(f"The folder {folder} holds no GGUF file and no safetensors; name the file itself.")
    shards = _with_shards(models[0])
    if set(models) != set(shards):
        raise WrongUsage(f"The folder {folder} holds more than one GGUF file; name the file itself.")
    return {file.name: file for file in (*shards, *projectors)}


def _check_stays_inside(folder: Path, name: str, file: Path) -> None:
    """A folder that came from elsewhere must not make us send what lies outside of it."""
    roots = [folder.resolve()]
    if folder.parent.name == "snapshots":  # the Hugging Face cache, whose files are links into a folder beside
        roots.append((folder.parent.parent / "blobs").resolve())
    if not any(file.resolve().is_relative_to(root) for root in roots):
        raise WrongUsage(f"{name} in {folder} is a link to a file outside of it.")
