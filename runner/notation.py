"""How people write addresses and durations, in settings, on the command line and in requests."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

DEFAULT_PORT = 11434


class Address(NamedTuple):
    """Where the daemon listens, or where a client finds it."""

    scheme: str
    host: str
    port: int


def parse_host(text: str) -> Address:
    """Read `[scheme://]host[:port][/path]`; raises ValueError.

    Without a scheme it is http on port 11434; a scheme brings its own port, 80 or 443. IPv6
    addresses stand with or without brackets. An empty host is the loopback address.
    """
    wrong = ValueError(f"{text!r} is no address; one looks like 127.0.0.1:11434 or http://[::1]:8080")
    scheme, separator, rest = text.strip().strip("\"'").strip().rpartition("://")
    scheme = scheme.lower()
    if scheme not in _DEFAULT_PORTS or (separator and not scheme):
        raise wrong
    host, port_text = _split_port(rest.partition("/")[0])
    if re.search(r"[\s\[\]@?#\\%]", host) or (":" in host and not _is_ipv6(host)):
        raise wrong
    if port_text is None:
        port = _DEFAULT_PORTS[scheme]
    elif re.fullmatch(r"[0-9]{1,5}", port_text) and int(port_text) <= 65535:
        port = int(port_text)
    else:
        raise ValueError(f"{port_text!r} in {text!r} is no port; a port is a number from 0 to 65535")
    return Address(scheme or "http", host or "127.0.0.1", port)


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine can reach `host`; `localhost` counts as such."""
    if host.lower() == "localhost":
        return True
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def parse_duration(text: str) -> float:
    """Seconds of a Go duration such as `5m`, `1h30m`, `-1s` or `0`; raises ValueError."""
    match = re.fullmatch(r"([+-]?)(.*)", text.strip(), re.DOTALL)
    assert match is not None
    sign, body = match.groups()
    if body == "0":
        return 0.0
    parts = _DURATION_PART.findall(body)
    if not parts or "".join(number + unit for number, unit in parts) != body:
        if re.fullmatch(r"[0-9.]+", body):
            raise ValueError(f'{text!r} is no duration: its unit is missing, as in "5m" or "30s"')
        raise ValueError(f'{text!r} is no duration; one looks like "5m", "1h30m" or "500ms"')
    seconds = sum(float(number) * _DURATION_UNITS[unit] for number, unit in parts)
    if not math.isfinite(seconds):
        raise ValueError(f"{text!r} is too long for a duration")
    return -seconds if sign == "-" else seconds


_DEFAULT_PORTS = {"": DEFAULT_PORT, "http": 80, "https": 443}
_DURATION_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")


def _split_port(text: str) -> tuple[str, str | None]:
    bracketed = re.fullmatch(r"\[([^\]]*)\](?::(.*))?", text)
    if bracketed is not None and _is_ipv6(bracketed[1]):
        return bracketed[1], bracketed[2]
    if _is_ipv6(text):
        return text, None
    host, colon, port = text.rpartition(":")
    return (host, port) if colon else (text, None)


def _is_ipv6(text: str) -> bool:
    if text.count(":") < 2:
        return False
    import ipaddress  # here and above: too slow an import for a command line that rarely meets one

    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True
