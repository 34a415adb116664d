"""Where the daemon is, and the API key for it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import NamedTuple

from cli.errors import BrokenConfiguration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

    from runner.notation import Address


class DaemonAddress(NamedTuple):
    """Where to connect to; never an address that is only good for listening."""

    scheme: str
    host: str
    port: int

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @property
    def is_local(self) -> bool:
        """Whether a daemon started here would be found there."""
        if self.scheme != "http":
            return False
        from runner.notation import is_loopback

        return is_loopback(self.host)


def daemon_address(environ: Mapping[str, str] = os.environ) -> DaemonAddress:
    """The address from PUNA_HOST, else from config.toml, else the default; raises BrokenConfiguration.

    The usual spellings are read here, since the settings take longer to import than a listing takes.
    """
    text = environ.get("PUNA_HOST", "").strip()
    plain = re.fullmatch(r"(127\.0\.0\.1|localhost):([1-9][0-9]{0,3}|[1-5][0-9]{4})", text)
    if plain is not None:
        return DaemonAddress("http", plain[1], int(plain[2]))
    if not text:
        from registry.paths import Paths

        config_file = Paths.from_environment(environ).config_file
        if not config_file.exists():
            return DaemonAddress("http", "127.0.0.1", 11434)
    from runner.config_file import SettingsError
    from runner.notation import parse_host
    from runner.settings import load_settings

    try:
        address = parse_host(text) if text else load_settings(config_file, environ).server.address
    except (SettingsError, ValueError) as error:
        raise BrokenConfiguration(f"PUNA_HOST: {error}" if text else str(error)) from None
    if address.port == 0:
        where = "PUNA_HOST" if text else "server.host"
        raise BrokenConfiguration(f"{where}: port 0 is any free port, where no command would find the daemon.")
    return _to_connect_to(address)


def daemon_key(address: DaemonAddress, environ: Mapping[str, str] = os.environ) -> str | None:
    """The key from PUNA_API_KEY, else from config.toml for the daemon at the address that stands there.

    A key of the file is for no other daemon than the one of the file. Raises BrokenConfiguration.
    """
    from registry.paths import Paths

    text = environ.get("PUNA_API_KEY", "").strip().strip("\"'").strip()
    config_file = Paths.from_environment(environ).config_file
    if not text and not _may_hold_a_key(config_file):
        return None
    from runner.config_file import SettingsError, read_value
    from runner.setting_kinds import API_KEY
    from runner.settings import load_settings

    try:
        if text:
            return str(read_value(API_KEY, text, "PUNA_API_KEY"))
        settings = load_settings(config_file, {name: value for name, value in environ.items() if name != "PUNA_HOST"})
    except SettingsError as error:
        raise BrokenConfiguration(str(error)) from None
    return settings.access.api_key if _to_connect_to(settings.server.address) == address else None


def _to_connect_to(address: Address) -> DaemonAddress:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)
    return DaemonAddress(address.scheme, host, address.port)


def _may_hold_a_key(config_file: Path) -> bool:
    # To read the settings takes longer than a listing does.
    try:
        return b"api_key" in config_file.read_bytes()
    except OSError:
        return False
