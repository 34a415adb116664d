"""Addresses and durations, as people write them."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.notation import Address, is_loopback, parse_duration, parse_host


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("", ("http", "127.0.0.1", 11434)),
        ("1.2.3.4", ("http", "1.2.3.4", 11434)),
        ("1.2.3.4:", None),
        (":56789", ("http", "127.0.0.1", 56789)),
        ("example.com:56789", ("http", "example.com", 56789)),
        ("http://1.2.3.4", ("http", "1.2.3.4", 80)),
        ("https://1.2.3.4", ("https", "1.2.3.4", 443)),
        ("HTTPS://example.com:1/some/path", ("https", "example.com", 1)),
        ("::1", ("http", "::1", 11434)),
        ("[::1]", ("http", "::1", 11434)),
        ("[::1]:1337", ("http", "::1", 1337)),
        ("https://[::1]", ("https", "::1", 443)),
        (' "1.2.3.4" ', ("http", "1.2.3.4", 11434)),
        ("127.0.0.1:0", ("http", "127.0.0.1", 0)),
        ("1.2.3.4:65536", None),
        ("1.2.3.4:-1", None),
        ("1.2.3.4:x", None),
        ("1.2.3.4:１", None),
        ("ftp://1.2.3.4", None),
        ("://1.2.3.4", None),
        ("[::1", None),
        ("[nonsense]:80", None),
        ("user@host", None),
        ("a b", None),
    ],
)
def test_addresses(text: str, address: tuple[Any, ...] | None) -> None:
    if address is None:
        with pytest.raises(ValueError, match=r"is no (address|port)"):
            parse_host(text)
    else:
        assert parse_host(text) == Address(*address)


@given(st.text())
def test_no_text_breaks_the_reader_of_addresses(text: str) -> None:
    try:
        address = parse_host(text)
    except ValueError:
        return
    assert address.scheme in ("http", "https")
    assert 0 <= address.port <= 65535
    assert address.host


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5m", 300),
        ("1h30m", 5400),
        ("24h", 86400),
        ("1.5s", 1.5),
        (".5s", 0.5),
        ("500ms", 0.5),
        ("2us", 2e-6),
        ("2µs", 2e-6),
        ("100ns", 1e-7),
        ("-1s", -1),
        ("-1m30s", -90),
        ("+1s", 1),
        ("0", 0),
        ("-0", 0),
        ("10", None),
        ("-1", None),
        ("", None),
        ("s", None),
        ("5 m", None),
        ("5d", None),
        ("--5s", None),
        ("1e3s", None),
        ("9" * 400 + "h", None),
    ],
)
def test_durations(text: str, seconds: float | None) -> None:
    if seconds is None:
        with pytest.raises(ValueError, match="duration"):
            parse_duration(text)
    else:
        assert parse_duration(text) == pytest.approx(seconds)


@given(st.text())
def test_no_text_breaks_the_reader_of_durations(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert math.isfinite(parse_duration(text))


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True), ("127.1.2.3", True), ("::1", True), ("localhost", True), ("LOCALHOST", True),
        ("0.0.0.0", False), ("::", False), ("192.168.1.2", False), ("example.com", False),
        ("localhost.example.com", False),
    ],
)  # fmt: skip
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
