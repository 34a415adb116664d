"""The package index that the installed Python tooling uses when nothing is configured.

Its address is read out of pip's own source text: the pip beside this program, the one that every
Python carries for `ensurepip`, or the one of another Python on the search path. No code of pip runs.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import shutil
import subprocess
import sysconfig
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin

_MODULE = "pip/_internal/models/index.py"
_ASK = "import importlib.util as u; s = u.find_spec('pip'); print(s.origin if s else '')"
_ASK_SECONDS = 20


def find_default_index() -> str | None:
    """The address of the simple API, or None when no pip is to be found. Blocks; may start another Python."""
    for text in _texts():
        address = read_address(text)
        if address is not None:
            return address
    return None


def read_address(text: str) -> str | None:
    """The address in the source text of pip's module about indexes."""
    with contextlib.suppress(SyntaxError, ValueError):
        for node in ast.parse(text).body:
            if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Call):
                continue
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            arguments = [one.value for one in node.value.args if isinstance(one, ast.Constant)]
            if "PyPI" in names and arguments and isinstance(arguments[0], str):
                return urljoin(arguments[0], "simple")
    return None


def _texts() -> Iterator[str]:
    yield from _beside("pip")
    for wheel in _bundled_wheels():
        with (
            contextlib.suppress(OSError, KeyError, zipfile.BadZipFile, UnicodeDecodeError),
            zipfile.ZipFile(wheel) as z,
        ):
            yield z.read(_MODULE).decode()
    yield from _other_pythons()


def _beside(package: str) -> Iterator[str]:
    spec = importlib.util.find_spec(package)
    if spec is not None and spec.origin:
        yield from _text_at(Path(spec.origin))


def _bundled_wheels() -> Iterator[Path]:
    folders = [sysconfig.get_config_var("WHEEL_PKG_DIR")]
    spec = importlib.util.find_spec("ensurepip")
    if spec is not None and spec.origin:
        folders.append(str(Path(spec.origin).parent / "_bundled"))
    for folder in filter(None, folders):
        yield from sorted(Path(folder).glob("pip-*.whl"), reverse=True)


def _other_pythons() -> Iterator[str]:
    for name in ("python3", "python", "py"):
        program = shutil.which(name)
        if program is None:
            continue
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            answer = subprocess.run(
                [program, "-I", "-c", _ASK], capture_output=True, text=True, timeout=_ASK_SECONDS, check=False
            ).stdout.strip()
            if answer:
                yield from _text_at(Path(answer))


def _text_at(package_file: Path) -> Iterator[str]:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        yield (package_file.parent.parent / _MODULE).read_text("utf-8")
