"""PUNA_HOST before config.toml before the default."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.address import DaemonAddress, daemon_address
from cli.errors import BrokenConfiguration


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("127.0.0.1:1234", "http://127.0.0.1:1234"), ("localhost:1", "http://localhost:1"),
        ("0.0.0.0", "http://127.0.0.1:11434"), ("[::]:5", "http://[::1]:5"), (":7000", "http://127.0.0.1:7000"),
        ("https://example.com", "https://example.com:443"), ("http://example.com:8080/x", "http://example.com:8080"),
    ],
)  # fmt: skip
def test_an_address_to_listen_at_becomes_one_to_connect_to(text: str, url: str, tmp_path: Path) -> None:
    assert daemon_address({"PUNA_HOST": text, "PUNA_HOME": str(tmp_path)}).url == url


def test_without_a_setting_it_is_the_default(tmp_path: Path) -> None:
    assert daemon_address({"PUNA_HOME": str(tmp_path)}) == DaemonAddress("http", "127.0.0.1", 11434)


def test_the_file_counts_when_the_environment_is_silent(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('[server]\nhost = "127.0.0.1:1999"\n')
    assert daemon_address({"PUNA_HOME": str(tmp_path)}).port == 1999
    assert daemon_address({"PUNA_HOME": str(tmp_path), "PUNA_HOST": "127.0.0.1:2000"}).port == 2000


def test_what_is_wrong_is_said_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(BrokenConfiguration, match=r"PUNA_HOST.*99999"):
        daemon_address({"PUNA_HOST": "127.0.0.1:99999", "PUNA_HOME": str(tmp_path)})
    (tmp_path / "config.toml").write_text("\n[sever]\n")
    with pytest.raises(BrokenConfiguration, match=r"config\.toml:2.*sever"):
        daemon_address({"PUNA_HOME": str(tmp_path)})


@pytest.mark.parametrize("text", ["127.0.0.1:0", "localhost:0", "[::1]:0"])
def test_no_command_looks_for_a_daemon_at_any_free_port(text: str, tmp_path: Path) -> None:
    with pytest.raises(BrokenConfiguration, match="port 0"):
        daemon_address({"PUNA_HOME": str(tmp_path), "PUNA_HOST": text})


def test_only_plain_http_on_this_machine_is_local() -> None:
    assert DaemonAddress("http", "localhost", 1).is_local
    assert DaemonAddress("http", "::1", 1).is_local
    assert not DaemonAddress("https", "127.0.0.1", 443).is_local
    assert not DaemonAddress("http", "192.168.1.4", 1).is_local
