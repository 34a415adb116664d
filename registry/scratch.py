"""Files that exist while a model is being made, on the store's own disk."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import time
from pathlib import Path

from registry.locks import writing
from registry.relative_path import RelativePath

_FOLDER = "scratch"
_STALE_SECONDS = 6 * 3600.0


class Scratch:
    """A folder of one creation, to be removed when it is over. Every method blocks."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._area = root / _FOLDER
        self._folder = self._area / secrets.token_hex(8)

    def path(self, name: str) -> Path:
        """A place for a new file. Removes what a creation that was killed has left long ago."""
        with writing(self._root):
            self._folder.mkdir(parents=True, exist_ok=True)
        _remove_stale(self._area)
        return self._folder / name

    def remove(self) -> None:
        """Delete the folder and what is in it; more calls do nothing."""
        shutil.rmtree(self._folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            self._area.rmdir()

    def link(self, files: dict[str, Path]) -> Path:
        """A folder in which files have the names given here; their content is not copied where that can be avoided.

        Raises InvalidRequest for a name that not every system can store, or that leads out of the folder.
        """
        folder = self.path(secrets.token_hex(4))
        for name, source in files.items():
            target = folder.joinpath(*RelativePath.parse(name).parts)
            with writing(self._root):
                target.parent.mkdir(parents=True, exist_ok=True)
                _link(source.resolve(), target)
        return folder


def _link(source: Path, target: Path) -> None:
    try:
        target.symlink_to(source)
    except OSError:
        # Windows wants a privilege for symbolic links.
        try:
            os.link(source, target)
        except OSError:
            shutil.copyfile(source, target)


def _remove_stale(area: Path) -> None:
    with contextlib.suppress(OSError):
        for folder in list(area.iterdir()):
            changed = max((entry.lstat().st_mtime for entry in (folder, *folder.rglob("*"))), default=0.0)
            if time.time() - changed > _STALE_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)
