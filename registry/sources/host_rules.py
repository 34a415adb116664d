"""Asks for no address that the registries table does not allow: after name resolution, and on each redirect."""

from __future__ import annotations

import asyncio
import socket
import time

from registry.registries import Registries, split_url

_RESOLVE_SECONDS = 15.0
_REMEMBER_SECONDS = 60.0


class HostRules:
    """The rules for one pull or push; a `HostPolicy`.

    What a name resolves to is looked up before the connection looks it up again. A name that changes its mind in
    between gains nothing: a host that is not listed has to show a certificate for its name first.
    """

    def __init__(self, registries: Registries) -> None:
        self._registries = registries
        self._resolved: dict[tuple[str, int], tuple[float, tuple[str, ...]]] = {}

    async def check(self, url: str) -> None:
        """Raises RegistryForbidden for an address that must not be asked."""
        self._registries.check_scheme(url)
        parts = split_url(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        for address in await self._addresses(parts.hostname or "", port):
            self._registries.check_address(url, address)

    def verifies_tls(self, url: str) -> bool:
        return self._registries.verifies_tls(url)

    async def _addresses(self, host: str, port: int) -> tuple[str, ...]:
        """Every address of a host; none when it has none here, which the connection, or its proxy, will tell."""
        known = self._resolved.get((host, port))
        if known is not None and time.monotonic() - known[0] < _REMEMBER_SECONDS:
            return known[1]
        try:
            async with asyncio.timeout(_RESOLVE_SECONDS):
                found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError, TimeoutError):
            return ()
        addresses = tuple(dict.fromkeys(str(one[4][0]) for one in found))
        self._resolved[host, port] = (time.monotonic(), addresses)
        return addresses
