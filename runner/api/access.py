"""Who may ask: checks of Host and Origin, and what browsers are told about it (CORS)."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Sequence

import psutil
from starlette.datastructures import Headers

from runner.errors import HostForbidden, OriginForbidden
from runner.notation import is_loopback

_LOCAL_SUFFIXES = (".localhost", ".local", ".internal")
_PROGRAM_SCHEMES = (
    "app", "file", "tauri", "vscode-webview", "vscode-file",
    "chrome-extension", "moz-extension", "ms-browser-extension", "safari-extension", "safari-web-extension",
)  # fmt: skip
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://([^/?#@\s]*)", re.IGNORECASE)

_STAINLESS = (
    "lang", "package-version", "os", "arch", "retry-count", "runtime", "runtime-version", "async",
    "helper-method", "poll-helper", "custom-poll-interval", "timeout", "read-timeout",
)  # fmt: skip
_ALLOWED_HEADERS = ", ".join(
    (
        "Authorization", "Content-Type", "User-Agent", "Accept", "X-Requested-With", "X-Request-Id",
        "X-Puna-Priority", "OpenAI-Beta", "OpenAI-Organization", "OpenAI-Project", "x-api-key",
        "anthropic-version", "anthropic-beta", "anthropic-dangerous-direct-browser-access",
        *(f"x-stainless-{name}" for name in _STAINLESS),
    )
)  # fmt: skip
_EXPOSED_HEADERS = "X-Request-Id, Request-Id, X-Puna-Ignored, Retry-After"


class AccessPolicy:
    """Decides by the Host and Origin headers of a request.

    The Host check keeps a web site from reaching the daemon through a name of its own that it
    points at this machine (DNS rebinding): an address cannot be re-pointed, and the names taken
    are ones that no stranger controls.
    """

    def __init__(self, bind_host: str, origins: Sequence[str]) -> None:
        self._is_loopback = is_loopback(bind_host)
        self._own_names = {"localhost", socket.gethostname().lower(), bind_host.lower()}
        self._origins = [_origin_pattern(origin) for origin in origins]
        self._origin_hosts = {
            host.lower()
            for origin in origins
            if (match := _ORIGIN.fullmatch(origin)) and (host := _host_name(match[2])) and "*" not in host
        }

    def check(self, headers: Headers) -> str | None:
        """The origin to answer to, or None without one; raises HostForbidden or OriginForbidden."""
        hosts = headers.getlist("host")
        host = hosts[0] if hosts else ""
        if len(hosts) > 1 or not self._is_own_host(host):
            raise HostForbidden(
                "The Host header names a host that is not this one. Use the address of this machine, or allow "
                "the name with an entry in `origins` of [access] in config.toml."
            )
        origin = headers.get("origin")
        if origin is None:
            return None
        if len(headers.getlist("origin")) > 1 or not self._is_allowed_origin(origin, host):
            raise OriginForbidden(
                "Pages of this origin may not use the daemon. Allow it with an entry in `origins` of [access] "
                "in config.toml."
            )
        return origin

    def _is_own_host(self, header: str) -> bool:
        if not header:
            return True
        name = _host_name(header)
        if name is None:
            return False
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return name in self._own_names or name in self._origin_hosts or name.endswith(_LOCAL_SUFFIXES)
        return not self._is_loopback or not address.is_global or name in _own_addresses()

    def _is_allowed_origin(self, origin: str, host_header: str) -> bool:
        if any(pattern.fullmatch(origin) for pattern in self._origins):
            return True
        match = _ORIGIN.fullmatch(origin)
        if match is None:
            return False
        scheme, authority = match[1].lower(), match[2].lower()
        if scheme in _PROGRAM_SCHEMES:
            return True
        name = _host_name(authority)
        if scheme not in ("http", "https") or name is None:
            return False
        is_local = name.endswith(".localhost") or name == "0.0.0.0" or is_loopback(name)
        return is_local or authority == host_header.lower()


def cors_headers(origin: str) -> dict[str, str]:
    """Headers that let a page of `origin` read the answer."""
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Expose-Headers": _EXPOSED_HEADERS,
        "Vary": "Origin",
    }


def preflight_headers(request: Headers) -> dict[str, str]:
    """What else the answer to a browser's OPTIONS request says."""
    headers = {
        "Access-Control-Allow-Methods": "GET, HEAD, POST, DELETE, OPTIONS",
        "Access-Control-Allow-Headers": _ALLOWED_HEADERS,
        "Access-Control-Max-Age": "7200",
    }
    if request.get("access-control-request-private-network") == "true":
        headers["Access-Control-Allow-Private-Network"] = "true"
    return headers


def _host_name(authority: str) -> str | None:
    """The name or address of `host[:port]`, lower-case, without brackets or a last dot; None for anything else."""
    match = _HOST.fullmatch(authority)
    if match is None:
        return None
    return match[1].strip("[]").lower().removesuffix(".")


def _own_addresses() -> set[str]:
    return {entry.address.partition("%")[0].lower() for entries in psutil.net_if_addrs().values() for entry in entries}


def _origin_pattern(text: str) -> re.Pattern[str]:
    if text == "*":
        return re.compile(r".*", re.DOTALL)
    return re.compile("[^/]*".join(map(re.escape, text.rstrip("/").split("*"))), re.IGNORECASE)
