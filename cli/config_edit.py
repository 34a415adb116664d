"""Changes to config.toml that leave everything else in it as its owner wrote it, comments too."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.errors import BrokenConfiguration, CliError

if TYPE_CHECKING:
    from tomlkit import TOMLDocument

_NEW_FILE_MODE = 0o600
"""It may come to hold passwords."""


def read_document(path: Path) -> TOMLDocument:
    """The file to be changed; an empty one when there is none. Raises BrokenConfiguration."""
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        return tomlkit.parse(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        return tomlkit.document()
    except (TOMLKitError, UnicodeDecodeError) as error:
        raise BrokenConfiguration(f"{path} cannot be changed: {error}.") from None
    except OSError as error:
        raise BrokenConfiguration(f"{path} cannot be read: {error.strerror}.") from None


def table_in(document: TOMLDocument, name: str) -> Any:
    """The table of that name, made when it is absent. Raises BrokenConfiguration when it is something else."""
    import tomlkit

    if name not in document:
        document[name] = tomlkit.table(is_super_table=True)
    found = document[name]
    if not isinstance(found, dict):
        raise BrokenConfiguration(f"{name} in config.toml is no table.")
    return found


def write_document(path: Path, document: TOMLDocument) -> None:
    """Replace the file in one step. Raises CliError when that cannot be."""
    path = Path(os.path.realpath(path))  # a link to a file kept elsewhere stays one
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            file.write(document.as_string().encode())
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(stat.S_IMODE(path.stat().st_mode) if path.exists() else _NEW_FILE_MODE)
        Path(temporary).replace(path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise CliError(f"{path} cannot be written: {error.strerror}.") from error
