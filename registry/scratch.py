"""Files that exist while a model is being made, on the store's own disk."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from filelock import BaseFileLock

from registry.locks import try_acquire, writing

_FOLDER = "scratch"


class Scratch:
    """A folder of one creation, to be removed when it is over. Every method blocks.

    A lock tells other processes that it is in use; that of a process that died is free, and its
    folder goes with the next look.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._name = secrets.token_hex(8)
        self._folder = root / _FOLDER / self._name
        self._lock: BaseFileLock | None = None

    def path(self, name: str) -> Path:
        """A place for a new file. Raises StoreReadOnly or DiskFull."""
        if self._lock is None:
            remove_abandoned(self._root)
            with writing(self._root):
                self._lock = try_acquire(_lock_file(self._root, self._name))
                self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder / name

    def link(self, files: Mapping[str, Path]) -> Path:
        """A folder in which files have the names given here; they are not copied where that can be avoided."""
        folder = self.path(secrets.token_hex(4))
        for name, source in files.items():
            target = folder.joinpath(*PurePosixPath(name).parts)
            with writing(self._root):
                target.parent.mkdir(parents=True, exist_ok=True)
                _link(source.resolve(), target)
        return folder

    def remove(self) -> None:
        """Delete the folder and what is in it; more calls do nothing."""
        if self._lock is not None:
            _remove(self._root, self._name, self._lock)
            self._lock = None


def remove_abandoned(root: Path) -> None:
    """Delete the folders of creations whose processes are gone. Raises nothing; blocks."""
    with contextlib.suppress(OSError):
        for folder in list((root / _FOLDER).iterdir()):
            lock = try_acquire(_lock_file(root, folder.name))
            if lock is not None:
                _remove(root, folder.name, lock)


def _remove(root: Path, name: str, lock: BaseFileLock) -> None:
    shutil.rmtree(root / _FOLDER / name, ignore_errors=True)
    with contextlib.suppress(OSError):
        (root / _FOLDER).rmdir()
    lock.release()
    with contextlib.suppress(OSError):
        _lock_file(root, name).unlink(missing_ok=True)


def _lock_file(root: Path, name: str) -> Path:
    return root / "locks" / f"scratch-{name}.lock"


def _link(source: Path, target: Path) -> None:
    try:
        target.symlink_to(source)
    except OSError:
        # Windows wants a privilege for symbolic links.
        try:
            os.link(source, target)
        except OSError:
            shutil.copyfile(source, target)
