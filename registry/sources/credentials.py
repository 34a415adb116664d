"""User names and passwords for package indexes, each for its own host only."""

from __future__ import annotations

import base64
import contextlib
import netrc
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Login:
    user: str
    password: str = field(repr=False)

    @property
    def header(self) -> str:
        token = base64.b64encode(f"{self.user}:{self.password}".encode()).decode("ascii")
        return f"Basic {token}"


class Credentials:
    """Knows which login belongs to which scheme, host and port, and gives it to no other."""

    def __init__(self, environ: Mapping[str, str], home: Path) -> None:
        self._by_origin: dict[tuple[str, str, int], Login] = {}
        self._netrc = _read_netrc(environ, home)

    def strip(self, url: str) -> str:
        """The address without the login in it, which is remembered for its host."""
        parts = _split(url)
        if parts is None or "@" not in parts.netloc:
            return url
        origin = _origin(parts)
        if origin is not None and parts.username:
            self._by_origin.setdefault(origin, Login(unquote(parts.username), unquote(parts.password or "")))
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))

    def add(self, url: str, login: Login) -> None:
        """Remember a login for the host of an address."""
        parts = _split(url)
        origin = _origin(parts) if parts is not None else None
        if origin is not None:
            self._by_origin[origin] = login

    def find(self, url: str) -> Login | None:
        """The login for an address, which must match in scheme, host and port; netrc knows hosts alone."""
        parts = _split(url)
        origin = _origin(parts) if parts is not None else None
        if origin is None:
            return None
        return self._by_origin.get(origin) or self._from_netrc(origin)

    def _from_netrc(self, origin: tuple[str, str, int]) -> Login | None:
        scheme, host, _ = origin
        if self._netrc is None or host not in self._netrc.hosts:
            return None
        # A netrc file does not say which scheme it means, and a password is not for everyone on the way.
        if scheme != "https" and host not in ("127.0.0.1", "localhost", "::1"):
            return None
        found = self._netrc.authenticators(host)
        return Login(found[0], found[2]) if found and found[0] and found[2] else None


def shown(url: str) -> str:
    """An address fit for messages: no login, no query, which may be a signature."""
    parts = _split(url)
    if parts is None:
        return "an address that cannot be read"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _split(url: str) -> SplitResult | None:
    try:
        return urlsplit(url)
    except ValueError:
        return None


def _origin(parts: SplitResult) -> tuple[str, str, int] | None:
    try:
        port = parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError:
        return None
    if parts.scheme not in _PORTS or not parts.hostname:
        return None
    return parts.scheme, parts.hostname.lower(), port


def _read_netrc(environ: Mapping[str, str], home: Path) -> netrc.netrc | None:
    named = environ.get("NETRC")
    for path in [Path(named)] if named else [home / ".netrc", home / "_netrc"]:
        with contextlib.suppress(OSError, netrc.NetrcParseError, UnicodeDecodeError):
            return netrc.netrc(str(path))
    return None
