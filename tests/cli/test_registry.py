"""`puna registry` and `puna push` as a user types them."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from cli.errors import BROKEN_CONFIGURATION, FAILED, NOT_ALLOWED, WRONG_USAGE
from cli.outcome import exit_code_of
from runner.settings import RegistrySettings, load_registries
from tests.cli.conftest import Puna
from tests.cli.fake_daemon import FakeDaemon, refusal

WRITTEN = """\
# mine
[server]
host = "127.0.0.1:11434"  # the usual one

[registries."registry.example.com"]  # at work
credentials = "$WORK_LOGIN"

[models."smol"]
temperature = 0.5
"""


@pytest.fixture
def config(home: Path) -> Path:
    return home / "config.toml"


@pytest.fixture
def own_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """For commands that are run in this process."""
    monkeypatch.setenv("PUNA_HOME", str(home))
    return home


def test_the_key_is_made_once_and_only_its_owner_can_read_it(puna: Puna, home: Path) -> None:
    first = puna("registry", "key").stdout
    assert first.startswith("ssh-ed25519 AAAA") and first.endswith(" puna\n")
    assert puna("registry", "key").stdout == first
    if os.name == "posix":
        assert stat.S_IMODE((home / "id_ed25519").stat().st_mode) == 0o600
    (home / "id_ed25519").write_text("nonsense")
    assert "no ed25519 key" in puna("registry", "key", code=FAILED).stderr


def test_a_registry_that_knows_keys_is_listed_as_such(puna: Puna, config: Path) -> None:
    puna("registry", "add", "models.example.com", "--key")
    assert load_registries(config) == {"models.example.com": RegistrySettings(key=True)}
    assert puna("registry", "list").stdout.splitlines()[1].split() == ["models.example.com", "no", "-", "key"]


def test_a_registry_is_added_listed_and_removed(puna: Puna, config: Path, daemon: FakeDaemon) -> None:
    assert "is listed" in puna("registry", "add", "LocalHost:5000", "--insecure").stderr
    puna("registry", "add", "https://hub.example.com/", "--mirror", "localhost:5000")
    assert load_registries(config) == {
        "localhost:5000": RegistrySettings(insecure=True),
        "hub.example.com": RegistrySettings(mirror="localhost:5000"),
    }
    rows = [line.split() for line in puna("registry", "list").stdout.splitlines()]
    assert rows == [
        ["REGISTRY", "INSECURE", "MIRROR", "LOGIN"],
        ["localhost:5000", "yes", "-", "no"],
        ["hub.example.com", "no", "localhost:5000", "no"],
    ]
    puna("registry", "remove", "localhost:5000")
    puna("registry", "remove", "hub.example.com:443")
    assert load_registries(config) == {}
    assert daemon.requests == [], "the daemon reads the file itself"


def test_everything_else_in_the_file_stays_as_it_is(puna: Puna, config: Path) -> None:
    config.parent.mkdir()
    config.write_text(WRITTEN)
    puna("registry", "add", "localhost:5000", "--insecure")
    written = config.read_text()
    assert [line for line in written.splitlines() if line in WRITTEN.splitlines()] == WRITTEN.splitlines()
    assert load_registries(config)["localhost:5000"].insecure
    puna("registry", "remove", "localhost:5000")
    assert config.read_text().rstrip() == WRITTEN.rstrip()


def test_adding_again_changes_only_what_is_said(puna: Puna, config: Path) -> None:
    config.parent.mkdir()
    config.write_text(WRITTEN)
    assert "already" in puna("registry", "add", "REGISTRY.example.com:443", "--insecure").stderr
    assert load_registries(config) == {
        "registry.example.com": RegistrySettings(insecure=True, credentials="$WORK_LOGIN")
    }
    puna("registry", "add", "registry.example.com")
    assert load_registries(config)["registry.example.com"].insecure


def test_a_listing_in_json_tells_that_there_is_a_login_and_not_which(puna: Puna, config: Path) -> None:
    config.parent.mkdir()
    config.write_text(WRITTEN)
    listing = puna("registry", "list", "--json").stdout
    assert json.loads(listing)["registries"] == [
        {"host": "registry.example.com", "insecure": False, "mirror": None, "has_credentials": True, "key": False}
    ]
    assert "WORK_LOGIN" not in listing


def test_a_registry_that_is_not_listed_cannot_be_removed(puna: Puna, config: Path) -> None:
    assert "not listed" in puna("registry", "remove", "localhost:5000", code=FAILED).stderr
    assert not config.exists()


@pytest.mark.parametrize("host", ["a b", "host/path", "host:0", "host:99999", "user@host", "-x:1", ""])
def test_what_is_no_host_is_refused(own_home: Path, capsys: pytest.CaptureFixture[str], host: str) -> None:
    assert exit_code_of(["registry", "add", "--", host]) == WRONG_USAGE
    assert "is no registry" in capsys.readouterr().err
    assert not own_home.exists()


@pytest.mark.parametrize(
    "text", ['[registries."a b"]', "[registries.h]\nmirror = 5", "[registries.h]\ncredentials = 'abc'", "[registries"]
)
def test_a_broken_file_is_told_and_left_alone(
    own_home: Path, config: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    own_home.mkdir()
    config.write_text(text)
    for command in (["add", "localhost:5000"], ["list"], ["remove", "h"]):
        assert exit_code_of(["registry", *command]) == BROKEN_CONFIGURATION
        told = capsys.readouterr().err
        assert "config.toml:1" in told or "config.toml:2" in told
        assert "abc" not in told
    assert config.read_text() == text


@pytest.mark.skipif(os.name == "nt", reason="modes and links are those of POSIX")
def test_the_file_keeps_its_mode_and_stays_a_link(puna: Puna, config: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "dotfiles.toml"
    elsewhere.write_text(WRITTEN)
    elsewhere.chmod(0o640)
    config.parent.mkdir()
    config.symlink_to(elsewhere)
    puna("registry", "add", "localhost:5000")
    assert config.is_symlink()
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o640
    assert "localhost:5000" in load_registries(elsewhere)


@pytest.mark.skipif(os.name == "nt", reason="modes are those of POSIX")
def test_a_new_file_is_for_its_owner_alone(puna: Puna, config: Path) -> None:
    puna("registry", "add", "localhost:5000")
    assert stat.S_IMODE(config.stat().st_mode) == 0o600


def test_a_push_is_followed_to_its_end(puna: Puna, daemon: FakeDaemon) -> None:
    digest = "sha256:" + "0" * 64
    daemon.routes["POST /api/push"] = lambda body: [
        {"status": "retrieving manifest"},
        {"status": "pushing 000000000000", "digest": digest, "total": 10, "completed": 10},
        {"status": "success"},
    ]
    told = puna("push", "localhost:5000/me/tiny").stderr
    assert "pushing 000000000000: 10 B of 10 B (100%)" in told
    puna("push", "--insecure", "localhost:5000/me/tiny")
    assert [body for path, body in daemon.requests if path == "POST /api/push"] == [
        {"model": "localhost:5000/me/tiny"},
        {"model": "localhost:5000/me/tiny", "insecure": True},
    ]


def test_insecure_pulls_say_so(puna: Puna, daemon: FakeDaemon) -> None:
    daemon.routes["POST /api/pull"] = lambda body: [{"status": "success"}]
    puna("pull", "--insecure", "localhost:5000/me/tiny")
    assert ("POST /api/pull", {"model": "localhost:5000/me/tiny", "insecure": True}) in daemon.requests


@pytest.mark.parametrize("code", ["registry_forbidden", "unauthorized"])
def test_what_is_not_allowed_has_its_exit_code(puna: Puna, daemon: FakeDaemon, code: str) -> None:
    daemon.routes["POST /api/push"] = lambda body: refusal(403, code, "Not so: `puna registry add x`")
    assert puna("push", "x/y/z", code=NOT_ALLOWED).stderr.strip().endswith("Not so: `puna registry add x`.")
