"""A registry that knows accounts by the keys of their machines: what is signed, and for whom."""

from __future__ import annotations

import base64
import json
import os
import stat
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

from registry.errors import Unauthorized
from registry.registries import Registries, RegistryEntry
from registry.sources.logins import Logins
from registry.sources.machine_key import MachineKey
from tests.registry.hostile_registry import HostileRegistry, Reply, Request
from tests.registry.oci_rig import Site

EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


class Accounts:
    """A token server that verifies signatures as Ollama's does: by the key, over the address it was asked at."""

    def __init__(self, registry: HostileRegistry) -> None:
        self.keys: set[str] = set()
        self.used: set[str] = set()
        self._registry = registry

    def answer(self, request: Request) -> Reply | None:
        if request.path == "/v2/":
            return None
        if request.path == "/token":
            return self._token(request)
        if request.headers.get("authorization") == "Bearer good":
            return None
        realm = f"http://{self._registry.host}/token"
        challenge = f'Bearer realm="{realm}",service="ollama",scope="repository:me/tiny:pull,push"'
        return Reply(401, headers={"WWW-Authenticate": challenge})

    def _token(self, request: Request) -> Reply:
        key, _, signature = request.headers.get("authorization", "").partition(":")
        try:
            pair = serialization.load_ssh_public_key(f"ssh-ed25519 {key}".encode())
            assert isinstance(pair, Ed25519PublicKey)
            body = base64.b64encode(EMPTY_SHA256.encode()).decode()
            url = f"http://{self._registry.host}{request.target}"
            pair.verify(base64.b64decode(signature, validate=True), f"GET,{url},{body}".encode())
        except (ValueError, InvalidSignature):
            return Reply(401)
        query = parse_qs(urlsplit(request.target).query)
        is_new = query["nonce"][0] not in self.used and abs(int(query["ts"][0]) - time.time()) < 60
        self.used.add(query["nonce"][0])
        return Reply(200, json.dumps({"token": "good"}).encode()) if key in self.keys and is_new else Reply(401)


@pytest.fixture
def registry() -> Iterator[HostileRegistry]:
    with HostileRegistry().running() as registry:
        yield registry


@pytest.fixture
def accounts(registry: HostileRegistry) -> Accounts:
    accounts = Accounts(registry)
    registry.interfere = accounts.answer
    return accounts


async def test_a_model_is_pushed_and_pulled_with_the_key_of_the_machine(
    registry: HostileRegistry, accounts: Accounts, tmp_path: Path
) -> None:
    site = Site(tmp_path)
    site.allow(registry.host, key=True)
    site.install(f"{registry.host}/me/tiny")
    accounts.keys.add(site.key.public().split()[1])
    await site.push(f"{registry.host}/me/tiny")
    assert registry.pushed == [site.manifest_bytes(f"{registry.host}/me/tiny")]
    await site.pull(f"{registry.host}/me/other")
    assert len(accounts.used) == len(registry.asked("GET", "/token")) > 1


async def test_a_key_that_is_not_known_there_is_told_how_to_become_so(
    registry: HostileRegistry, accounts: Accounts, tmp_path: Path
) -> None:
    site = Site(tmp_path)
    site.allow(registry.host, key=True)
    site.install(f"{registry.host}/me/tiny")
    with pytest.raises(Unauthorized, match=r"does not know this machine's key .* `puna registry key` prints"):
        await site.push(f"{registry.host}/me/tiny")
    assert registry.pushed == []


async def test_a_registry_that_is_not_said_to_know_keys_never_sees_one(
    registry: HostileRegistry, accounts: Accounts, tmp_path: Path
) -> None:
    site = Site(tmp_path)
    site.allow(registry.host)
    site.install(f"{registry.host}/me/tiny")
    with pytest.raises(Unauthorized, match="gives no token without a login"):
        await site.push(f"{registry.host}/me/tiny")
    assert "authorization" not in registry.asked("GET", "/token")[0].headers and not site.key.path.exists()


@pytest.mark.parametrize(
    ("host", "entry", "has_key"),
    [
        ("registry.ollama.ai", None, True),
        ("registry.ollama.ai", RegistryEntry("registry.ollama.ai", credentials="me:secret"), False),
        ("hub.example.com", None, False),
        ("hub.example.com", RegistryEntry("hub.example.com", key=True), True),
    ],
)
async def test_the_key_is_for_ollamas_registry_and_those_that_are_listed_so(
    tmp_path: Path, host: str, entry: RegistryEntry | None, has_key: bool
) -> None:
    registries = Registries({} if entry is None else {host: entry})
    key = MachineKey(tmp_path / "key")
    found = await Logins(registries, {"NETRC": str(tmp_path / "netrc")}, tmp_path, key).find(host)
    assert (found == key) == has_key and not key.path.exists()


def test_keys_made_at_once_are_one(tmp_path: Path) -> None:
    key = MachineKey(tmp_path / "new" / "key")
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(key.public())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and len(set(found)) == 1
    assert [path.name for path in key.path.parent.iterdir()] == ["key"]
    if os.name == "posix":
        assert stat.S_IMODE(key.path.stat().st_mode) == 0o600
    (length,) = struct.unpack(">I", base64.b64decode(found[0].split()[1])[:4])
    assert length == len("ssh-ed25519")


def test_other_keys_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    for content in (b"", b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n", _rsa()):
        path.write_bytes(content)
        with pytest.raises(Unauthorized, match="no ed25519 key"):
            MachineKey(path).public()
    with pytest.raises(Unauthorized, match="cannot be used"):
        MachineKey(tmp_path).public()


def _rsa() -> bytes:
    private = generate_private_key(65537, 2048)
    return private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
