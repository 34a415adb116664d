"""Find a Python that is new enough; written for every Python 3, since it may run in an old one."""

import os
import shutil
import subprocess
import sys

OLDEST = (3, 11)
NEWEST_KNOWN = 16


def ensure():
    # type: () -> None
    """Return when this Python is new enough; else go on in a newer one, or leave with one sentence."""
    if sys.version_info[:2] >= OLDEST:
        return
    for minor in range(NEWEST_KNOWN, OLDEST[1] - 1, -1):
        found = shutil.which("python3.{}".format(minor))  # noqa: UP032
        if found and os.name != "nt" and subprocess.call([found, "-c", ""], stderr=subprocess.DEVNULL) == 0:
            os.execv(found, [found] + sys.argv)  # noqa: RUF005
    sys.exit(
        "Puna needs Python 3.11 or newer; this is {}.{} ({}). Install a newer one ({}) and try again.".format(  # noqa: UP032
            sys.version_info[0], sys.version_info[1], sys.executable, _advice()
        )
    )


def _advice():
    # type: () -> str
    if os.name == "nt":
        return "winget install Python.Python.3.13"
    if sys.platform == "darwin":
        return "brew install python"
    for manager, advice in (
        ("apt-get", "sudo apt install python3.11 python3.11-venv"),
        ("dnf", "sudo dnf install python3.12"),
        ("pacman", "sudo pacman -S python"),
        ("zypper", "sudo zypper install python312"),
        ("apk", "sudo apk add python3"),
    ):
        if shutil.which(manager):
            return advice
    return "https://www.python.org/downloads/"
