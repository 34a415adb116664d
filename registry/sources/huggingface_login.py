"""Which hub is asked and as whom: HF_ENDPOINT, and the token where the hub's own tools keep it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from registry.errors import SourceError
from registry.registries import host_of, split_url
from registry.sources.credentials import shown

DEFAULT_ENDPOINT = "https://huggingface.co"
_PORTS = {"http": 80, "https": 443}
_MAX_TOKEN_BYTES = 4096


@dataclass(frozen=True, slots=True)
class HubLogin:
    """The hub's address, and the token that goes there and nowhere else."""

    endpoint: str
    """Without a slash at its end."""
    token: str | None = field(default=None, repr=False)

    @property
    def host(self) -> str:
        """Host and, when it is not the usual one, port."""
        return host_of(split_url(self.endpoint))

    async def headers(self, url: str) -> Mapping[str, str]:
        """The token for addresses of the hub itself; files may lie on other hosts, which do not get it."""
        if self.token is None or origin_of(url) != origin_of(self.endpoint):
            return {}
        return {"Authorization": f"Bearer {self.token}"}

    async def refused(self, url: str, status: int, headers: Mapping[str, str]) -> bool:
        """There is no better login than the one there is."""
        return False


def find_login(environ: Mapping[str, str], home: Path) -> HubLogin:
    """Read the environment and the token file. Blocks. Raises SourceError for an HF_ENDPOINT that is no address."""
    endpoint = environ.get("HF_ENDPOINT", "").strip().rstrip("/") or DEFAULT_ENDPOINT
    if origin_of(endpoint) is None:
        raise SourceError(f"HF_ENDPOINT is no address of a hub: {shown(endpoint)}.")
    return HubLogin(endpoint, _clean(environ.get("HF_TOKEN", "")) or _token_in(_token_file(environ, home)))


def origin_of(url: str) -> tuple[str, str, int] | None:
    """Scheme, host and port of an address; None when it is none that can be opened."""
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError:
        return None
    return (parts.scheme, parts.hostname.lower(), port) if parts.hostname and parts.scheme in _PORTS else None


def _token_file(environ: Mapping[str, str], home: Path) -> Path:
    named = environ.get("HF_TOKEN_PATH")
    if named:
        return _expanded(named, home)
    folder = environ.get("HF_HOME")
    if folder:
        return _expanded(folder, home) / "token"
    cache = environ.get("XDG_CACHE_HOME")
    return (_expanded(cache, home) if cache else home / ".cache") / "huggingface" / "token"


def _expanded(path: str, home: Path) -> Path:
    path = os.path.expandvars(path)
    return home / path[2:] if path.startswith(("~/", "~\\")) else Path(path)


def _token_in(file: Path) -> str | None:
    with contextlib.suppress(OSError, UnicodeDecodeError), file.open("rb") as opened:
        return _clean(opened.read(_MAX_TOKEN_BYTES).decode())
    return None


def _clean(token: str) -> str | None:
    """Without the line's end that copying leaves; None for what cannot stand in a header."""
    token = token.strip()
    return token if token and token.isascii() and token.isprintable() else None
