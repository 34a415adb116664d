"""Locks between the processes, and the threads, that share one store."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from registry.errors import DiskFull, RegistryError, StoreReadOnly

logger = logging.getLogger(__name__)

_READ_ONLY = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
_IMPOSSIBLE = frozenset({errno.ENOTDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG})
"""What making a folder fails with where a file is in its way."""
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_UNLOCKABLE = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})
_PATIENCE_SECONDS = 60.0


class StoreBusy(RegistryError):
    """Another process has held the store's lock for too long."""

    code = "model_in_use"


@contextlib.contextmanager
def writing(root: Path) -> Iterator[None]:
    """Turn the failures of a file system into errors with a name: StoreReadOnly, DiskFull."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFull(f"The disk that holds the model store is full ({os.strerror(error.errno)}).") from error
        if error.errno in _READ_ONLY | _IMPOSSIBLE:
            raise StoreReadOnly(
                f"The model store cannot be written ({os.strerror(error.errno)}); "
                "set PUNA_MODELS to a folder of your own to add or remove models."
            ) from error
        raise


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold a lock for a short change; waits for others, up to a minute. Raises StoreBusy."""
    lock = _make(path)
    try:
        lock = _acquire(lock, path, _PATIENCE_SECONDS)
    except Timeout:
        raise StoreBusy("Another process has been changing the model store for a minute; try again.") from None
    try:
        yield
    finally:
        lock.release()


def try_acquire(path: Path) -> BaseFileLock | None:
    """The lock, held, or None when somebody else has it. Whoever got it calls `release`."""
    try:
        return _acquire(_make(path), path, 0)
    except Timeout:
        return None


def clear_unless_held(path: Path) -> bool:
    """Remove the file of a lock that nobody holds; whether that could be done."""
    lock = try_acquire(path)
    if lock is None:
        return False
    try:
        # Whoever is about to lock this very file finds it gone and makes another.
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
    finally:
        lock.release()
    return True


def _make(path: Path) -> BaseFileLock:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not bound to a thread: what takes the lock in one worker thread may give it back in another.
    return FileLock(path, thread_local=False)


def _acquire(lock: BaseFileLock, path: Path, timeout: float) -> BaseFileLock:
    try:
        lock.acquire(timeout=timeout, poll_interval=0.02)
    except NotImplementedError:
        return _acquire_soft(path, timeout)
    except OSError as error:
        if isinstance(error, Timeout) or error.errno not in _UNLOCKABLE:
            raise
        return _acquire_soft(path, timeout)
    return lock


def _acquire_soft(path: Path, timeout: float) -> BaseFileLock:
    # Told once, when the daemon starts: `registry.file_system`.
    logger.info("%s is on a file system without locks; a lock file is used instead.", path.parent)
    lock = SoftFileLock(path.with_suffix(".soft"), thread_local=False)
    lock.acquire(timeout=timeout, poll_interval=0.02)
    return lock
