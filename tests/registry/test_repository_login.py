"""Tokens: what is sent for them, how long they are kept, and that one is enough for many."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from registry.errors import SourceError
from registry.name import ModelName
from registry.sources.repository_login import read_token
from tests.registry.hostile_registry import HostileRegistry, Reply, Request
from tests.registry.oci_rig import Site


class Tokens:
    """Lets a registry take only the newest of the tokens that it gives."""

    def __init__(self, registry: HostileRegistry) -> None:
        self.given = 0
        self.header = (
            f'Basic realm="b", Bearer realm="http://{registry.host}/token?account=x",service="the service",'
            'scope="repository:me/tiny:pull"'
        )

    def answer(self, request: Request) -> Reply | None:
        if request.path == "/token":
            self.given += 1
            return Reply(200, json.dumps({"access_token": f"t{self.given}", "expires_in": 300}).encode())
        if self.given and request.headers.get("authorization") == f"Bearer t{self.given}":
            return None
        return Reply(401, headers={"WWW-Authenticate": self.header})


@pytest.fixture
def registry() -> Iterator[HostileRegistry]:
    with HostileRegistry().running() as registry:
        yield registry


@pytest.fixture
def tokens(registry: HostileRegistry) -> Tokens:
    tokens = Tokens(registry)
    registry.interfere = lambda request: None if request.path == "/v2/" else tokens.answer(request)
    return tokens


async def test_the_token_is_asked_for_as_the_registry_says(
    registry: HostileRegistry, tokens: Tokens, tmp_path: Path
) -> None:
    site = Site(tmp_path)
    site.allow(registry.host, login="me:secret")
    await site.pull(f"{registry.host}/me/tiny")
    [asked] = registry.asked("GET", "/token")
    assert asked.query == {"account": "x", "service": "the service", "scope": "repository:me/tiny:pull"}
    assert asked.headers["authorization"].startswith("Basic ")


async def test_a_token_serves_all_pulls_until_it_ends(
    registry: HostileRegistry, tokens: Tokens, tmp_path: Path
) -> None:
    site = Site(tmp_path)
    site.allow(registry.host)
    for _ in range(3):
        await site.pull(f"{registry.host}/me/tiny")
    assert tokens.given == 1
    tokens.given += 1  # what was given is worth nothing now
    await site.pull(f"{registry.host}/me/tiny")
    assert tokens.given == 3


async def test_an_identity_token_is_exchanged(registry: HostileRegistry, tokens: Tokens, tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.allow(registry.host)
    (site.home / ".docker").mkdir()
    auths = {registry.host: {"identitytoken": "long one"}}
    (site.home / ".docker" / "config.json").write_text(json.dumps({"auths": auths}))
    await site.pull(f"{registry.host}/me/tiny")
    [asked] = registry.asked("POST", "/token")
    assert parse_qs(asked.body.decode()) == {
        "grant_type": ["refresh_token"],
        "service": ["the service"],
        "client_id": ["puna"],
        "scope": ["repository:me/tiny:pull"],
        "refresh_token": ["long one"],
    }


async def test_many_connections_share_one_new_token(registry: HostileRegistry, tokens: Tokens, tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.allow(registry.host)
    name = ModelName.parse(f"{registry.host}/me/tiny")
    resolved = await site.source.resolve(name, lambda text: None)
    login = resolved.files[0].places[0].authorizer  # type: ignore[union-attr]
    assert login is not None
    tokens.given += 1  # what was given is worth nothing now
    url = f"http://{registry.host}/v2/me/tiny/blobs/x"
    for _ in range(8):
        await login.headers(url)
    before = tokens.given
    refused = [login.refused(url, 401, {"www-authenticate": tokens.header}) for _ in range(8)]
    assert await asyncio.gather(*refused) == [True] * 8
    assert tokens.given == before + 1
    assert await login.headers(url) == {"Authorization": f"Bearer t{tokens.given}"}
    assert await login.headers("http://127.0.0.1:1/v2/me/tiny/blobs/x") == {}
    assert await login.headers(url.replace("http:", "https:")) == {}


@pytest.mark.parametrize(
    ("document", "longest"),
    [
        ({"token": "a"}, 60),
        ({"access_token": "a", "expires_in": 300}, 300),
        ({"token": "a", "expires_in": 1e308}, 3600),
        ({"token": "a", "expires_in": -5}, 60),
        ({"token": "a", "expires_in": "300"}, 60),
        ({"token": "a", "expires_in": True}, 60),
        ({"token": "a", "expires_in": float("nan")}, 60),
        ({"token": "a", "expires_in": float("inf")}, 60),
    ],
)
def test_tokens_are_renewed_before_they_end(document: dict[str, object], longest: float) -> None:
    now = time.monotonic()
    token = read_token(json.dumps(document).encode(), "the place")
    assert token.is_good(now)
    assert not token.is_good(now + longest)
    assert "a" not in repr(token).replace("Token(expires_at=", "")


@pytest.mark.parametrize("value", ["", "a b", "a\nb", "é", 7, None, ["a"]])
def test_what_cannot_be_a_header_is_no_token(value: object) -> None:
    with pytest.raises(SourceError):
        read_token(json.dumps({"token": value}).encode(), "the place")
