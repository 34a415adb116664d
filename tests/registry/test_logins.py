"""Logins for registries, from all the places where people keep them."""

from __future__ import annotations

import base64
import json
import os
import stat
import sys
from pathlib import Path

import pytest

from registry.registries import Registries, RegistryEntry
from registry.sources.credentials import Login
from registry.sources.logins import IdentityToken, Logins

HOST = "registry.example.com"
HUB = "https://index.docker.io/v1/"


def encoded(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


def write_docker(home: Path, document: object) -> None:
    folder = home / ".docker"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(document if isinstance(document, str) else json.dumps(document))


def write_helper(folder: Path, name: str, script: str) -> dict[str, str]:
    """A credential helper on the search path, written in Python."""
    folder.mkdir(exist_ok=True)
    program = folder / f"docker-credential-{name}"
    program.write_text(f"#!{sys.executable}\nimport sys, json, time\nasked = sys.stdin.read()\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return {"PATH": str(folder)}


def logins(home: Path, environ: dict[str, str] | None = None, credentials: str | None = None) -> Logins:
    entries = {HOST: RegistryEntry(HOST, credentials=credentials)} if credentials else {}
    return Logins(Registries(entries), environ or {}, home, helper_seconds=60)


async def test_without_any_there_is_none(tmp_path: Path) -> None:
    assert await logins(tmp_path).find(HOST) is None


async def test_what_is_configured_here_comes_first(tmp_path: Path) -> None:
    write_docker(tmp_path, {"auths": {HOST: {"auth": encoded("docker", "no")}}})
    assert await logins(tmp_path, credentials="me:se:cret").find(HOST) == Login("me", "se:cret")


@pytest.mark.parametrize("reference", ["$THE_LOGIN", "${THE_LOGIN}"])
async def test_a_variable_may_hold_the_login(tmp_path: Path, reference: str) -> None:
    found = await logins(tmp_path, {"THE_LOGIN": "me:secret"}, reference).find(HOST)
    assert found == Login("me", "secret")


async def test_a_variable_that_is_not_set_is_no_login(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert await logins(tmp_path, {}, "$THE_LOGIN").find(HOST) is None
    assert "THE_LOGIN" in caplog.text


async def test_a_dollar_inside_a_user_is_a_dollar(tmp_path: Path) -> None:
    assert await logins(tmp_path, {"ci": "x:y"}, "robot$ci:secret").find(HOST) == Login("robot$ci", "secret")


@pytest.mark.parametrize("key", [HOST, f"https://{HOST}", f"https://{HOST}/v1/", f"https://{HOST}/v2/"])
async def test_dockers_own_logins_are_found(tmp_path: Path, key: str) -> None:
    write_docker(tmp_path, {"auths": {key: {"auth": encoded("me", "secret")}}})
    assert await logins(tmp_path).find(HOST) == Login("me", "secret")
    assert await logins(tmp_path).find("other.example.com") is None


async def test_docker_config_may_be_elsewhere(tmp_path: Path) -> None:
    write_docker(tmp_path, {"auths": {HOST: {"username": "me", "password": "secret"}}})
    found = await logins(tmp_path / "nowhere", {"DOCKER_CONFIG": str(tmp_path / ".docker")}).find(HOST)
    assert found == Login("me", "secret")


@pytest.mark.parametrize("host", ["docker.io", "registry-1.docker.io", "auth.docker.io"])
async def test_docker_hub_has_one_login(tmp_path: Path, host: str) -> None:
    write_docker(tmp_path, {"auths": {HUB: {"auth": encoded("me", "secret")}}})
    assert await logins(tmp_path).find(host) == Login("me", "secret")


async def test_an_identity_token_is_one(tmp_path: Path) -> None:
    write_docker(tmp_path, {"auths": {HOST: {"auth": encoded("x", ""), "identitytoken": "long"}}})
    assert await logins(tmp_path).find(HOST) == IdentityToken("long")


@pytest.mark.parametrize(
    "document", ["", "[]", "{", "[" * 10_000, {"auths": 7}, {"auths": {HOST: 7}}, {"auths": {HOST: {"auth": "%"}}},
     json.dumps({"auths": {HOST: {"auth": encoded("me", "secret")}}, "x": "x" * (1 << 20)})],
)  # fmt: skip
async def test_a_broken_docker_config_is_passed_over(tmp_path: Path, document: object) -> None:
    write_docker(tmp_path, document)
    assert await logins(tmp_path).find(HOST) is None


async def test_netrc_is_asked_last_and_not_for_plain_http(tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine {HOST} login me password secret\n")
    netrc.chmod(0o600)
    here = logins(tmp_path, {"NETRC": str(netrc)})
    assert await here.find(HOST) == Login("me", "secret")
    assert await here.find(HOST, "http") is None


posix_only = pytest.mark.skipif(os.name == "nt", reason="the helper of this test is a script")


@posix_only
@pytest.mark.parametrize("setting", [{"credsStore": "test"}, {"credHelpers": {HOST: "test"}}])
async def test_credential_helpers_are_asked(tmp_path: Path, setting: dict[str, object]) -> None:
    write_docker(tmp_path, setting)
    script = 'print(json.dumps({"ServerURL": asked, "Username": "me", "Secret": "for " + asked}))'
    environ = write_helper(tmp_path / "bin", "test", script)
    assert await logins(tmp_path, environ).find(HOST) == Login("me", f"for {HOST}")


@posix_only
async def test_a_helper_may_give_an_identity_token(tmp_path: Path) -> None:
    write_docker(tmp_path, {"credsStore": "test"})
    environ = write_helper(tmp_path / "bin", "test", 'print(json.dumps({"Username": "<token>", "Secret": "long"}))')
    assert await logins(tmp_path, environ).find(HOST) == IdentityToken("long")


@posix_only
@pytest.mark.parametrize("script", ["sys.exit(1)", "print('credentials not found')", "print('[]')", "print('{}')"])
async def test_a_helper_without_the_login_leaves_it_to_others(tmp_path: Path, script: str) -> None:
    write_docker(tmp_path, {"credsStore": "test", "auths": {HOST: {"auth": encoded("me", "secret")}}})
    environ = write_helper(tmp_path / "bin", "test", script)
    assert await logins(tmp_path, environ).find(HOST) == Login("me", "secret")


@posix_only
async def test_a_helper_that_hangs_is_ended(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_docker(tmp_path, {"credHelpers": {HOST: "test"}})
    environ = write_helper(tmp_path / "bin", "test", "time.sleep(600)")
    here = Logins(Registries(), environ, tmp_path, helper_seconds=0.5)
    assert await here.find(HOST) is None
    assert "did not answer" in caplog.text


@pytest.mark.parametrize("name", ["gone", "../../bin/sh", "", 7])
async def test_a_helper_that_is_not_there_is_passed_over(tmp_path: Path, name: object) -> None:
    write_docker(tmp_path, {"credsStore": name})
    assert await logins(tmp_path, {"PATH": str(tmp_path)}).find(HOST) is None


def test_secrets_are_not_shown() -> None:
    assert "secret" not in repr(
        [Login("me", "secret"), IdentityToken("secret"), RegistryEntry("h", credentials="secret")]
    )
