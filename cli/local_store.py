"""The model store of this machine, for commands that work on its files without the daemon."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cli.address import daemon_address
from cli.errors import ApiError, BrokenConfiguration, CliError, WrongUsage
from cli.output import note

TYPE_CHECKING = False
if TYPE_CHECKING:
    from registry.store import ModelStore


def local_store(command: str, environ: Mapping[str, str] = os.environ) -> ModelStore:
    """The store of the daemon that the other commands talk to, running or not.

    Raises WrongUsage when PUNA_HOST names another machine, BrokenConfiguration.
    """
    address = daemon_address(environ)
    if not address.is_local:
        raise WrongUsage(
            f"`puna {command}` works on files of this machine, and PUNA_HOST names another one ({address.url}): "
            "run it there, or without PUNA_HOST."
        )
    from registry.paths import Paths
    from registry.store import ModelStore
    from runner.config_file import SettingsError
    from runner.runtime_file import read_runtime_file
    from runner.settings import load_settings

    paths = Paths.from_environment(environ)
    try:
        settings = load_settings(paths.config_file, environ)
    except SettingsError as error:
        raise BrokenConfiguration(str(error)) from None
    running = read_runtime_file(paths.state)
    models = Path(running.store) if running is not None else paths.models
    if models != paths.models:
        note(f"The running daemon keeps its models in {models}; they are what this is about.")
    return ModelStore(models, settings.store.layers)


@contextmanager
def telling_errors() -> Iterator[None]:
    """Turn what goes wrong in the registry and on the disk into a sentence and an exit code, as the daemon does."""
    from registry.errors import RegistryError

    try:
        yield
    except RegistryError as error:
        raise ApiError(error.message, error.code, dict(error.facts)) from None
    except OSError as error:
        if error.filename is None:
            raise
        raise CliError(f"{error.filename}: {error.strerror}.") from None
