"""The registries of config.toml, read anew whenever a pull or push begins, so that no change needs a restart."""

from __future__ import annotations

from pathlib import Path

from registry.registries import Registries, RegistryEntry
from runner.settings import load_registries


class RegistryTable:
    """Reads the table of one configuration file."""

    def __init__(self, config_file: Path) -> None:
        self._config_file = config_file

    def load(self) -> Registries:
        """The table as it is now; blocks. Raises SettingsError."""
        return Registries(
            {
                host: RegistryEntry(host, written.insecure, written.mirror, written.credentials, written.key)
                for host, written in load_registries(self._config_file).items()
            }
        )
