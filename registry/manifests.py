"""The manifest files of one store: which names are installed, in what spelling, and where."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from registry.errors import InvalidName
from registry.name import ModelName

_COLON = "%3A"
"""Stands for the colon before a port where file names cannot have one."""
_DEPTH = 4
_REFUSED_NAME = frozenset({errno.EINVAL, errno.EPROTO, errno.EILSEQ})


class Manifests:
    """Finds manifests in one folder; the layout is that of Ollama's store: `host/namespace/model/tag`."""

    def __init__(self, root: Path) -> None:
        self._folder = root / "manifests"

    def names(self) -> Iterator[tuple[ModelName, Path]]:
        """Every installed name with its file. What has no possible name is passed over."""
        for path in self.files():
            with contextlib.suppress(InvalidName):
                host, *rest = path.relative_to(self._folder).parts
                yield ModelName.of_path(host.replace(_COLON, ":"), *rest), path

    def files(self) -> Iterator[Path]:
        """Every manifest, also those whose names are impossible here: they need their blobs all the same."""
        return _files(self._folder, _DEPTH)

    def find(self, name: ModelName) -> tuple[ModelName, Path] | None:
        """The installed spelling of a name and its file. Names that differ in case alone are one."""
        if not self._folds_case:
            for path in self._places(name):
                if path.is_file():
                    return name, path
        for installed, path in self.names():
            if installed.folded == name.folded:
                return installed, path
        return None

    def prepare(self, name: ModelName) -> Path:
        """Where the manifest of a new name is to be written; its folder is there when this returns."""
        path, *otherwise = self._places(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if error.errno not in _REFUSED_NAME or not otherwise:
                raise
            path = otherwise[0]
            path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def remove(self, path: Path) -> None:
        """Delete a manifest and the folders that are empty without it."""
        path.unlink(missing_ok=True)
        folder = path.parent
        with contextlib.suppress(OSError):
            while folder != self._folder:
                folder.rmdir()
                folder = folder.parent

    def _places(self, name: ModelName) -> tuple[Path, ...]:
        """Where a name's file may be: as it is, and with its colon written otherwise."""
        host, *rest = name.path.parts
        if ":" not in host:
            return (self._folder.joinpath(host, *rest),)
        escaped = self._folder.joinpath(host.replace(":", _COLON), *rest)
        # On Windows a name with a colon could be a drive, and lead out of the folder.
        return (escaped,) if os.name == "nt" else (self._folder.joinpath(host, *rest), escaped)

    @cached_property
    def _folds_case(self) -> bool:
        """Whether the file system would find a file under a spelling that is not its own."""
        return self._folder.with_name("MANIFESTS").exists()


def _files(folder: Path, depth: int) -> Iterator[Path]:
    """The files exactly that deep, in order; hidden ones are some system's own."""
    try:
        with os.scandir(folder) as entries:
            found = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda one: one.name)
    except OSError:
        return
    for entry in found:
        if depth > 1 and entry.is_dir():
            yield from _files(Path(entry), depth - 1)
        elif depth == 1 and entry.is_file():
            yield Path(entry)
