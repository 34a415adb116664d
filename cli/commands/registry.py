"""`puna registry`: which registries may be asked wherever they are, and how."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.config_edit import read_document, table_in, write_document
from cli.errors import BrokenConfiguration, CliError, WrongUsage
from cli.output import note, write_json, write_line, write_table
from registry.paths import Paths

if TYPE_CHECKING:
    from runner.settings import RegistrySettings

_TABLE = "registries"


def print_key() -> None:
    """Print the public half of this machine's key, which is made if there is none."""
    from registry.errors import RegistryError
    from registry.sources.machine_key import MachineKey

    try:
        write_line(MachineKey.beside(_config_file()).public())
    except RegistryError as error:
        raise CliError(error.message) from None


def add_registry(host: str, *, insecure: bool, mirror: str | None, key: bool = False) -> None:
    """List a host, or change what is listed of it. A running daemon knows at its next pull or push."""
    import tomlkit

    host, mirror = _host(host), _host(mirror) if mirror is not None else None
    is_new = host not in _listed()
    path = _config_file()
    document = read_document(path)
    registries = table_in(document, _TABLE)
    spelled = _spelling(registries, host)
    if spelled is None:
        spelled = host
        registries[spelled] = tomlkit.table()
    if insecure:
        registries[spelled]["insecure"] = True
    if mirror is not None:
        registries[spelled]["mirror"] = mirror
    if key:
        registries[spelled]["key"] = True
    write_document(path, document)
    note(f"{host} is listed in {path}." if is_new else f"{host} was listed already; {path} is up to date.")


def list_registries(*, as_json: bool) -> None:
    """Print the listed hosts, without their logins."""
    listed = _listed()
    if as_json:
        write_json({"registries": [_entry(host, found) for host, found in listed.items()]})
        return
    rows = [
        [host, "yes" if found.insecure else "no", found.mirror or "-", _login(found)] for host, found in listed.items()
    ]
    write_table(["REGISTRY", "INSECURE", "MIRROR", "LOGIN"], rows)


def remove_registry(host: str) -> None:
    """Take a host off the list, with its login and mirror."""
    host = _host(host)
    path = _config_file()
    _listed()
    document = read_document(path)
    spelled = _spelling(document.get(_TABLE, {}), host)
    if spelled is None:
        raise CliError(f"{host} is not listed; `puna registry list` shows what is.")
    registries = table_in(document, _TABLE)
    del registries[spelled]
    if not registries:
        del document[_TABLE]
    write_document(path, document)
    note(f"{host} is no longer listed in {path}.")


def _config_file() -> Path:
    return Paths.from_environment(os.environ).config_file


def _listed() -> dict[str, RegistrySettings]:
    """What is listed now; a file that could not be read by the daemon is not changed either."""
    from runner.config_file import SettingsError
    from runner.settings import load_registries

    try:
        return load_registries(_config_file())
    except SettingsError as error:
        raise BrokenConfiguration(f"{error}.") from None


def _host(text: str) -> str:
    from runner.setting_kinds import REGISTRY_HOST

    bare = text.removeprefix("https://").removeprefix("http://").rstrip("/")
    try:
        host: str = REGISTRY_HOST.read(bare)
    except ValueError:
        raise WrongUsage(f"{text!r} is no registry; one is {REGISTRY_HOST.allowed}.") from None
    return host


def _spelling(registries: dict[str, Any], host: str) -> str | None:
    """How a host is spelled in the file."""
    return next((key for key in registries if _host(key) == host), None)


def _login(found: RegistrySettings) -> str:
    return "yes" if found.credentials else "key" if found.key else "no"


def _entry(host: str, found: RegistrySettings) -> dict[str, object]:
    return {
        "host": host,
        "insecure": found.insecure,
        "mirror": found.mirror,
        "has_credentials": found.credentials is not None,
        "key": found.key,
    }
