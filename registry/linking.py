"""Gives a file a second name without a second copy: a clone where the file system can, else a hard link."""

from __future__ import annotations

import contextlib
import enum
import errno
import os
import shutil
import sys
from pathlib import Path

_FICLONE = 0x40049409
"""Linux: let a new file share the blocks of another until one of them is written (Btrfs, XFS, bcachefs, NFS)."""


class Way(enum.Enum):
    """How a file came to where it is."""

    CLONE = "cloned"
    HARD_LINK = "hard link"
    REFERENCE = "used in place"
    COPY = "copied"


def clone(source: Path, target: Path) -> bool:
    """Make a new file that shares the blocks of another; whether that was possible. Leaves nothing if not.

    Raises FileExistsError when there is a file of that name.
    """
    if sys.platform == "linux":
        is_done = _clone_linux(source, target)
    elif sys.platform == "darwin":
        is_done = _clone_macos(source, target)
    else:
        is_done = False
    return is_done


def hard_link(source: Path, target: Path) -> bool:
    """Give a file a second name; whether that was possible. Raises FileExistsError when the name is taken."""
    try:
        os.link(source, target, follow_symlinks=True)
    except FileExistsError:
        raise
    except (OSError, NotImplementedError):
        # Another disk, a file of another user, or a file system without hard links.
        return False
    return True


def copy(source: Path, target: Path) -> None:
    """Copy a file's content, on the disk when this returns; the system does it where it has a fast way.

    Raises FileExistsError when there is a file of that name; what goes wrong leaves nothing behind.
    """
    with source.open("rb") as read, target.open("xb") as written:
        try:
            shutil.copyfileobj(read, written, 1 << 20)
            written.flush()
            os.fsync(written.fileno())
        except BaseException:
            with contextlib.suppress(OSError):
                target.unlink()
            raise


def _clone_linux(source: Path, target: Path) -> bool:
    if sys.platform != "linux":
        return False
    import fcntl

    with source.open("rb") as read, target.open("xb") as written:
        try:
            fcntl.ioctl(written.fileno(), _FICLONE, read.fileno())
        except OSError as error:
            target.unlink()
            if error.errno == errno.ENOSPC:
                raise
            return False
    return True


def _clone_macos(source: Path, target: Path) -> bool:
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "clonefile"):
        return False
    library.clonefile.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_uint32)
    if library.clonefile(os.fsencode(source.resolve()), os.fsencode(target), 0) == 0:
        return True
    if ctypes.get_errno() == errno.EEXIST:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    return False
