"""Which llama.cpp the engine and the programs it is compared with are made of, as each tells itself."""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

ENGINE = "llama-cpp-python"
_COMMIT = re.compile(r"commit ([0-9a-f]{7,40})|\(([0-9a-f]{7,40})\)")


def program_start(program: str) -> list[str]:
    """The command that starts a program, which may be one of Python, as in the tests."""
    return [sys.executable, program] if program.endswith(".py") else [program]


def program_version(program: str) -> str:
    """What a program of llama.cpp says of its build; nothing when it does not say."""
    return _said([*program_start(program), "--version"])


def engine_version() -> str:
    """The engine's version and the commit that its library was built from."""
    # In a process of its own: what generates load has no use for the library.
    commit = _said([sys.executable, "-P", __file__])
    return f"{ENGINE} {importlib.metadata.version(ENGINE)}" + (f" (commit {commit})" if commit else "")


def library_commit() -> str:
    """The commit that the installed library tells; empty for one that tells none. Loads it into this process."""
    package = importlib.util.find_spec("llama_cpp")
    assert package is not None and package.origin is not None
    folder = Path(package.origin).parent / "lib"
    for library in (*folder.glob("*ggml-base.so"), *folder.glob("*ggml-base.dylib"), *folder.glob("*ggml-base.dll")):
        try:
            commit = ctypes.CDLL(str(library)).ggml_commit
        except (OSError, AttributeError):
            return ""
        commit.restype = ctypes.c_char_p
        return bytes(commit()).decode("ascii", "replace")
    return ""


def compared(version: str, engine: str) -> str:
    """Whether a program is made of the same llama.cpp as the engine, in words; by what both say of themselves."""
    theirs, ours = _commit_in(version), _commit_in(engine)
    if theirs is None or ours is None:
        return "nobody can tell whether this is the engine's llama.cpp"
    if theirs.startswith(ours) or ours.startswith(theirs):
        return "the engine's own llama.cpp"
    return "NOT the engine's llama.cpp (scripts/build_llama_server builds that)"


def _commit_in(version: str) -> str | None:
    match = _COMMIT.search(version)
    return (match[1] or match[2]) if match else None


def _said(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return " ".join(f"{done.stdout} {done.stderr}".split())[:160] if done.returncode == 0 else ""


if __name__ == "__main__":
    print(library_commit())
