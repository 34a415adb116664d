"""`puna key` as a user types it, and the key that the command line itself sends."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from cli.address import DaemonAddress, daemon_address, daemon_key
from cli.errors import BROKEN_CONFIGURATION, FAILED, NOT_ALLOWED, WRONG_USAGE, BrokenConfiguration
from runner.api_keys import KeyFile, KeyRing, KeyScope
from tests.cli.conftest import Puna
from tests.cli.fake_daemon import FakeDaemon, refusal


@pytest.fixture
def file(home: Path) -> KeyFile:
    return KeyFile(home / "keys.json")


def test_a_key_is_made_printed_once_listed_and_removed(puna: Puna, file: KeyFile, daemon: FakeDaemon) -> None:
    made = puna("key", "create", "laptop")
    text = made.stdout.strip()
    key = KeyRing(file).find(text)
    assert key is not None and key.scopes == (KeyScope.INFER, KeyScope.READ)
    assert made.stdout == f"{text}\n", "alone, for use in scripts"
    assert "shown this once" in made.stderr and text not in made.stderr
    listed = puna("key", "list")
    assert listed.stdout.splitlines()[0].split() == ["ID", "NAME", "SCOPES", "PRIORITY", "CREATED"]
    assert listed.stdout.splitlines()[1].split()[:4] == [key.id, "laptop", "infer,read", "interactive"]
    assert text not in listed.stdout
    assert "good for nothing" in puna("key", "remove", "laptop").stderr
    assert file.read() == ()
    assert daemon.requests == [], "the daemon reads the file itself"
    if os.name == "posix":
        assert stat.S_IMODE(file.path.stat().st_mode) == 0o600


def test_programs_get_json(puna: Puna, file: KeyFile) -> None:
    made = json.loads(puna("key", "create", "build", "--scope", "manage, READ", "--background", "--json").stdout)
    key = KeyRing(file).find(made["key"])
    assert key is not None
    assert made == {"id": key.id, "name": "build", "scopes": ["read", "manage"], "key": made["key"]}
    (listed,) = json.loads(puna("key", "list", "--json").stdout)["keys"]
    assert listed == {
        "id": key.id,
        "name": "build",
        "scopes": ["read", "manage"],
        "priority": "background",
        "created_at": key.created_at.isoformat(),
    }
    assert json.loads(puna("key", "create", "all", "--scope", "infer", "--scope", "read,manage", "--json").stdout)[
        "scopes"
    ] == ["infer", "read", "manage"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("create", "x", "--scope", "infer,all"), WRONG_USAGE, "infer, read, manage"),
        (("create", "x", "--scope", " , "), WRONG_USAGE, "infer, read, manage"),
        (("create",), WRONG_USAGE, "NAME"),
        (("create", ""), FAILED, "1 to 64"),
        (("create", "taken"), FAILED, "already"),
        (("remove", "absent"), FAILED, "puna key list"),
    ],
)
def test_what_cannot_be_is_told(puna: Puna, file: KeyFile, arguments: tuple[str, ...], code: int, said: str) -> None:
    key, _ = file.create("taken", [KeyScope.INFER])
    assert said in puna("key", *arguments, code=code).stderr
    assert file.read() == (key,)


def test_a_file_that_is_none_is_named_and_kept(puna: Puna, file: KeyFile, home: Path) -> None:
    home.mkdir()
    file.path.write_text("{")
    for arguments in (("create", "x"), ("list",), ("remove", "x")):
        assert str(file.path) in puna("key", *arguments, code=BROKEN_CONFIGURATION).stderr
    assert file.path.read_text() == "{"


# --- the key that is sent --------------------------------------------------------------------------


def test_the_environment_names_the_key_that_is_sent(
    puna: Puna, daemon: FakeDaemon, environment: dict[str, str]
) -> None:
    environment["PUNA_API_KEY"] = "puna_1_2"
    puna("list")
    puna("cp", "smol", "other", code=FAILED)  # the fake knows no such path
    assert {headers.get("Authorization") for headers in daemon.headers} == {"Bearer puna_1_2"}
    assert len(daemon.headers) == len(daemon.requests) > 2
    environment.pop("PUNA_API_KEY")
    daemon.headers.clear()
    puna("list")
    assert {headers.get("Authorization") for headers in daemon.headers} == {None}


def test_a_daemon_that_wants_a_key_is_quoted(puna: Puna, daemon: FakeDaemon) -> None:
    daemon.routes["GET /api/version"] = lambda _: refusal(401, "unauthorized", "An API key is needed here.")
    failed = puna("list", code=NOT_ALLOWED)
    assert "An API key is needed here." in failed.stderr


def test_a_key_of_the_file_is_for_the_daemon_of_the_file_alone(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[server]\nhost = "0.0.0.0:1999"\n[access]\napi_key = "puna_1_2"\n')
    home = {"PUNA_HOME": str(tmp_path)}
    own = daemon_address(home)
    assert own == DaemonAddress("http", "127.0.0.1", 1999)
    assert daemon_key(own, home) == "puna_1_2"
    assert daemon_key(own, {**home, "PUNA_HOST": "127.0.0.1:1999"}) == "puna_1_2"
    for host in ("127.0.0.1:2000", "evil.example.com:1999", "https://127.0.0.1:1999"):
        elsewhere = {**home, "PUNA_HOST": host}
        assert daemon_key(daemon_address(elsewhere), elsewhere) is None
        assert daemon_key(daemon_address(elsewhere), {**elsewhere, "PUNA_API_KEY": " 'other' "}) == "other"


def test_without_a_key_the_settings_are_not_read(tmp_path: Path) -> None:
    home = {"PUNA_HOME": str(tmp_path), "PUNA_HOST": "127.0.0.1:1999"}
    assert daemon_key(daemon_address(home), home) is None
    (tmp_path / "config.toml").write_text("[nonsense]\n")
    assert daemon_key(daemon_address(home), home) is None


@pytest.mark.parametrize("text", ["two words", "schl\u00fcssel", "x" * 1001, "a\r\nHost: evil"])
def test_a_key_that_is_none_is_told_without_being_shown(tmp_path: Path, text: str) -> None:
    home = {"PUNA_HOME": str(tmp_path)}
    with pytest.raises(BrokenConfiguration, match="PUNA_API_KEY cannot be the value") as caught:
        daemon_key(daemon_address(home), {**home, "PUNA_API_KEY": text})
    (tmp_path / "config.toml").write_text(f"[access]\napi_key = {json.dumps(text)}\n", encoding="utf-8")
    with pytest.raises(BrokenConfiguration, match=r"config\.toml:2: access\.api_key cannot be the value") as again:
        daemon_key(DaemonAddress("http", "127.0.0.1", 11434), home)
    assert text not in caught.value.message + again.value.message
