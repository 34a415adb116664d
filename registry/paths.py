"""Where things live on disk.

Every command imports this, also those that are done in a few hundredths of a second: so it imports little.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

_APP = "puna"


class Paths(NamedTuple):
    """The places of one installation; nothing is created by asking."""

    config_file: Path
    models: Path
    state: Path
    cache: Path
    logs: Path

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Paths:
        """`PUNA_HOME` moves everything, `PUNA_MODELS` the store alone; else the system's own places."""
        home = _folder(environ.get("PUNA_HOME"))
        models = _folder(environ.get("PUNA_MODELS"))
        if home is not None:
            return cls(
                config_file=home / "config.toml",
                models=models or home / "models",
                state=home / "state",
                cache=home / "cache",
                logs=home / "logs",
            )
        import platformdirs

        places = platformdirs.PlatformDirs(_APP, appauthor=False)
        return cls(
            config_file=places.user_config_path / "config.toml",
            models=models or places.user_data_path / "models",
            state=places.user_state_path,
            cache=places.user_cache_path,
            logs=places.user_log_path,
        )


def _folder(text: str | None) -> Path | None:
    if not text:
        return None
    return Path(text).expanduser().absolute()
