"""Debian's registry server, for the tests that push to one: fetched into `.venv` where there is apt-get.

The package is taken apart and not installed, so that nothing is started and no right to install is needed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import environment

PACKAGE = "docker-registry"
PROGRAM = environment.BINARIES / PACKAGE
_SECONDS = 600


def ensure() -> None:
    """Have the program, where that is possible; the tests say what they miss elsewhere."""
    if PROGRAM.exists() or shutil.which(PACKAGE) or not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        return
    with tempfile.TemporaryDirectory() as folder:
        # On a new machine the lists of packages are empty; only the administrator can have them filled.
        if _fetch(Path(folder)) or (_is_administrator() and _run(["apt-get", "update"]) and _fetch(Path(folder))):
            return
    print(f"Debian's package {PACKAGE} could not be fetched; the tests that need it will say so.", file=sys.stderr)


def _fetch(folder: Path) -> bool:
    if not _run(["apt-get", "download", PACKAGE], folder):
        return False
    packages = list(folder.glob("*.deb"))
    if not packages or not _run(["dpkg-deb", "-x", str(packages[0]), str(folder / "tree")], folder):
        return False
    shutil.copy2(folder / "tree" / "usr" / "bin" / PACKAGE, PROGRAM)
    return True


def _is_administrator() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def _run(command: list[str], folder: Path | None = None) -> bool:
    try:
        return subprocess.run(command, cwd=folder, capture_output=True, timeout=_SECONDS, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
