"""Which registries are listed, and what that allows: decisions about hosts and addresses, made without a network."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit

from registry.errors import InvalidRequest, RegistryForbidden

DOCKER_HUB = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io", "auth.docker.io"})
"""One registry under several names: what people write, what answers, and what hands out its tokens."""
KEYED_REGISTRY = "registry.ollama.ai"
_DOCKER_HUB_API = "registry-1.docker.io"

_HOST = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_.-]{0,252}[a-z0-9_])?|\[[0-9a-f:.]{2,45}\])(?::([0-9]{1,5}))?")
_DEFAULT_PORTS = {"https": 443, "http": 80}
_IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class RegistryEntry:
    """One `[registries."HOST[:PORT]"]` table: a host that may be asked wherever it is."""

    host: str
    """As `normal_host` gives it."""
    insecure: bool = False
    """Plain HTTP and certificates that nobody vouches for are allowed."""
    mirror: str | None = None
    """Another host that is asked first."""
    credentials: str | None = field(default=None, repr=False)
    """`user:password`, or `$NAME` for an environment variable that holds that."""
    key: bool = False
    """It knows accounts by the keys of their machines."""


@dataclass(frozen=True, slots=True)
class Registries:
    """The listed hosts. Every other one may be asked when it is public, over HTTPS."""

    entries: Mapping[str, RegistryEntry] = field(default_factory=dict)

    def find(self, host: str) -> RegistryEntry | None:
        """The entry of a `HOST[:PORT]`; the names of Docker Hub share one."""
        return next((self.entries[name] for name in _names(host) if name in self.entries), None)

    def with_insecure(self, host: str) -> Registries:
        """These, with a listed host made insecure for one call. Raises RegistryForbidden when it is not listed."""
        entry = self.find(host)
        if entry is None:
            raise RegistryForbidden(
                f"{host} is not listed, so it is asked over HTTPS with a verified certificate only; "
                f"`puna registry add {host} --insecure` allows more.",
                host=host,
            )
        opened = dataclasses.replace(entry, insecure=True)
        return Registries({**self.entries, entry.host: opened})

    def knows_keys(self, host: str) -> bool:
        """Whether a normal host takes a signature for a login; Ollama's registry does."""
        entry = self.find(host)
        return host == KEYED_REGISTRY or (entry is not None and entry.key)

    def check_scheme(self, url: str) -> None:
        """Raises RegistryForbidden for an address of another scheme than is allowed for its host."""
        parts = split_url(url)
        host = host_of(parts)
        if parts.scheme == "https":
            return
        entry = self.find(host)
        if parts.scheme == "http" and entry is not None and entry.insecure:
            return
        raise RegistryForbidden(
            f"{host} would be asked over plain {parts.scheme.upper()}; "
            f"`puna registry add {host} --insecure` allows that.",
            host=host,
        )

    def check_address(self, url: str, address: str) -> None:
        """Raises RegistryForbidden when the host of `url` is not listed, and `address`, where it is, is not public."""
        host = host_of(split_url(url))
        if self.find(host) is None and not is_public(address):
            raise RegistryForbidden(
                f"{host} is at {address}, which is not a public address; `puna registry add {host}` allows it.",
                host=host,
                address=address,
            )

    def verifies_tls(self, url: str) -> bool:
        entry = self.find(host_of(split_url(url)))
        return entry is None or not entry.insecure


def normal_host(text: str) -> str:
    """A `HOST[:PORT]` as it is compared: lower case, without the port of HTTPS. Raises InvalidRequest."""
    host = text.strip().lower().removesuffix("/")
    match = _HOST.fullmatch(host)
    port = match[1] if match else None
    if match is None or (port is not None and not 0 < int(port) < 65536) or not _is_possible(host, port):
        raise InvalidRequest(f"{text[:100]!r} is no host; one looks like registry.example.com or localhost:5000.")
    return host.removesuffix(":443")


def api_host(host: str) -> str:
    """The host that answers for the registry people call `host`."""
    return _DOCKER_HUB_API if host.lower() in DOCKER_HUB else host.lower()


def is_same_registry(one: str, other: str) -> bool:
    """Whether two normal hosts are one registry, so that the login of one is the login of the other."""
    return one == other or {one, other} <= DOCKER_HUB


def split_url(url: str) -> SplitResult:
    """An HTTP address in its parts. Raises RegistryForbidden for anything else."""
    try:
        parts = urlsplit(url)
        if parts.scheme in _DEFAULT_PORTS and parts.hostname and (parts.port is None or parts.port > 0):
            return parts
    except ValueError:
        pass
    raise RegistryForbidden("A registry gave an address that is neither https nor http, which is not followed.")


def host_of(parts: SplitResult) -> str:
    """The normal host of an address."""
    name = parts.hostname or ""
    host = f"[{name}]" if ":" in name else name
    return host if parts.port in (None, _DEFAULT_PORTS[parts.scheme]) else f"{host}:{parts.port}"


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the internet at large; addresses that carry another one count as that."""
    try:
        found: _IPAddress = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo[1] if found.teredo else None)
        if inner is None and found in _NAT64:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        found = inner or found
    return found.is_global and not found.is_multicast


def _names(host: str) -> tuple[str, ...]:
    host = host.lower().removesuffix(":443")
    return (host, *sorted(DOCKER_HUB - {host})) if host in DOCKER_HUB else (host,)


def _is_possible(host: str, port: str | None) -> bool:
    bare = host.removesuffix(f":{port}") if port else host
    if not bare.startswith("["):
        return ".." not in bare
    try:
        ipaddress.IPv6Address(bare[1:-1])
    except ValueError:
        return False
    return True
