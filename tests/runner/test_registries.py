"""The `[registries]` table: what may stand in it, and when it is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from registry.registries import RegistryEntry
from runner.config_file import SettingsError
from runner.registries import RegistryTable
from runner.settings import RegistrySettings, load_settings

TEXT = """\
[registries."LocalHost:5000"]
insecure = true

[registries."registry.example.com:443"]
mirror = "Mirror.example.com"
credentials = "me:secret"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def test_registries_are_listed_by_host_and_port(file: Path) -> None:
    file.write_text(TEXT)
    listed = {
        "localhost:5000": RegistrySettings(insecure=True),
        "registry.example.com": RegistrySettings(mirror="mirror.example.com", credentials="me:secret"),
    }
    assert load_settings(file, {}).registries == listed
    assert RegistryTable(file).load().find("registry.example.com") == RegistryEntry(
        "registry.example.com", False, "mirror.example.com", "me:secret"
    )


def test_the_table_is_read_anew_each_time(file: Path) -> None:
    table = RegistryTable(file)
    assert table.load().find("localhost:5000") is None
    file.write_text(TEXT)
    assert table.load().find("localhost:5000") is not None


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        ('[registries."a b"]', 1, "'a b' cannot be a registry"),
        ("[registries.h]\ninsecure = 3", 2, "true or false"),
        ('[registries.h]\nmirror = "a/b"', 2, "HOST[:PORT]"),
        ('[registries.h]\n\ncredentials = "secret"', 3, '"user:password"'),
        ("[registries.h]\nsecure = true", 2, "unknown key 'secure'"),
        ('[registries.h]\n[registries."H:443"]', 2, "listed twice"),
        ("registries = 7", 1, "is a table"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(file: Path, text: str, line: int, told: str) -> None:
    file.write_text(text)
    for read in (lambda: load_settings(file, {}), RegistryTable(file).load):
        with pytest.raises(SettingsError) as caught:
            read()
        assert caught.value.line == line
        assert told in str(caught.value)
        assert "secret" not in str(caught.value).replace("insecure", "")


def test_logins_are_not_shown(file: Path) -> None:
    file.write_text(TEXT)
    assert "secret" not in repr(load_settings(file, {}))
    assert "secret" not in repr(RegistryTable(file).load())
