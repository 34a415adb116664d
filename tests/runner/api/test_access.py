"""Which hosts and origins are let in, and what browsers are told."""

from __future__ import annotations

import ipaddress
import socket

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from runner.api.access import AccessPolicy
from runner.errors import HostForbidden, OriginForbidden
from runner.notation import parse_host
from runner.settings import AccessSettings, ServerSettings, Settings
from tests.fakes import FakeSupervisor, answer
from tests.runner.api.serving import FakeDaemon

LOOPBACK = AccessPolicy("127.0.0.1", ["https://chat.example.com", "http://*.lan:*"])
EVERYWHERE = AccessPolicy("0.0.0.0", ["https://chat.example.com"])
CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}


def check(policy: AccessPolicy, host: str | None, origin: str | None = None) -> str | None:
    told = {"host": host, "origin": origin}
    return policy.check(Headers({name: value for name, value in told.items() if value is not None}))


def test_this_machine_is_known_by_its_names_and_addresses() -> None:
    own = [
        entry.address
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family == socket.AF_INET
    ]
    for host in (
        None, "", "localhost", "LOCALHOST:11434", "localhost.", "app.localhost:80", "127.0.0.1:11434", "127.8.8.8",
        "[::1]:11434", "0.0.0.0:11434", "192.168.1.5:11434", "10.0.0.1", "printer.local", "host.docker.internal:11434",
        socket.gethostname(), "chat.example.com", *own,
    ):  # fmt: skip
        assert check(LOOPBACK, host) is None


@pytest.mark.parametrize(
    "host",
    [
        "evil.example.com", "evil.example.com:11434", "localhost.evil.com", "127.0.0.1.evil.com", "local", "8.8.8.8",
        "evil.com@localhost", "localhost:11434@evil.com", "localhost/evil.com", "local host", "[::1", "[evil]",
        "2130706433", "localhost:port", "evillocalhost", "[2001:4860:4860::8888]",
    ],
)  # fmt: skip
def test_a_name_that_a_stranger_may_own_is_turned_away(host: str) -> None:
    with pytest.raises(HostForbidden):
        check(LOOPBACK, host)


def test_two_hosts_are_none() -> None:
    headers = Headers(raw=[(b"host", b"localhost"), (b"host", b"evil.example.com")])
    with pytest.raises(HostForbidden):
        LOOPBACK.check(headers)


def test_an_address_is_enough_when_other_machines_may_come() -> None:
    for host in ("8.8.8.8:11434", "192.168.1.5", "localhost", "chat.example.com"):
        assert check(EVERYWHERE, host) is None
    with pytest.raises(HostForbidden):
        check(EVERYWHERE, "evil.example.com")


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost", "http://localhost:3000", "https://127.0.0.1:8443", "http://[::1]:5173", "http://0.0.0.0:80",
        "http://tauri.localhost", "app://obsidian.md", "file://", "tauri://localhost", "vscode-webview://abc123",
        "chrome-extension://abcdef", "moz-extension://1-2-3", "safari-web-extension://x",
        "https://chat.example.com", "http://nas.lan:8080",
    ],
)  # fmt: skip
def test_programs_of_this_machine_and_listed_origins_may_ask(origin: str) -> None:
    assert check(LOOPBACK, "localhost:11434", origin) == origin


@pytest.mark.parametrize(
    "origin",
    [
        "null", "", "https://evil.example.com", "http://localhost.evil.com", "http://evil.com#localhost",
        "http://chat.example.com", "https://chat.example.com.evil.com", "https://chat.example.com:8443",
        "https://xchat.example.com", "http://a.b/.lan:80", "http://user@localhost:3000", "localhost",
        "javascript://localhost", "http://localhost, https://evil.com", "http://192.168.1.7:3000",
    ],
)  # fmt: skip
def test_any_other_origin_is_turned_away(origin: str) -> None:
    with pytest.raises(OriginForbidden):
        check(LOOPBACK, "localhost:11434", origin)


def test_a_page_may_ask_the_address_it_came_from() -> None:
    assert check(LOOPBACK, "192.168.1.5:11434", "http://192.168.1.5:11434")
    with pytest.raises(OriginForbidden):
        check(LOOPBACK, "192.168.1.5:11434", "http://192.168.1.5:8080")


def test_a_star_lets_every_origin_in() -> None:
    policy = AccessPolicy("127.0.0.1", ["*"])
    assert check(policy, "localhost", "https://evil.example.com")
    assert check(policy, "localhost", "null")


@given(st.from_regex(r"[a-z0-9.-]{1,20}\.(com|org|net|io)", fullmatch=True))
def test_no_public_name_passes(host: str) -> None:
    with pytest.raises(HostForbidden):
        check(LOOPBACK, host)


@given(st.ip_addresses())
def test_every_private_address_passes_and_no_public_one_that_is_not_ours(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    host = f"[{address}]" if address.version == 6 else str(address)
    own = {entry.address for entries in psutil.net_if_addrs().values() for entry in entries}
    try:
        check(LOOPBACK, host)
    except HostForbidden:
        assert address.is_global and str(address) not in own
    else:
        assert not address.is_global or str(address) in own


@pytest.mark.parametrize("path", ["/", "/api/tags", "/v1/models", "/healthz", "/nothing"])
async def test_every_path_is_behind_the_check(path: str) -> None:
    async with FakeDaemon().client() as client:
        stranger = await client.get(path, headers={"host": "evil.example.com"})
        page = await client.get(path, headers={"origin": "https://evil.example.com"})
    assert (stranger.status_code, page.status_code) == (403, 403)
    for response, code in ((stranger, "host_forbidden"), (page, "origin_forbidden")):
        body = response.json()
        assert (body["error"] if path.startswith("/v1/") else body)["code"] == code
        assert response.headers["x-request-id"]


async def test_a_page_gets_the_headers_it_needs() -> None:
    async with FakeDaemon(FakeSupervisor(answer("Hi"))).client() as client:
        response = await client.post("/api/chat", json=CHAT, headers={"origin": "http://localhost:3000"})
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert "X-Request-Id" in response.headers["access-control-expose-headers"]
    assert response.headers["vary"] == "Origin"


async def test_errors_reach_a_page_too() -> None:
    async with FakeDaemon().client() as client:
        response = await client.post("/api/chat", json={}, headers={"origin": "http://localhost:3000"})
    assert response.status_code == 400
    assert response.headers["access-control-allow-origin"] == "http://localhost:3000"


async def test_a_program_gets_no_headers_for_pages() -> None:
    async with FakeDaemon().client() as client:
        response = await client.get("/api/tags")
    assert not [name for name in response.headers if name.startswith("access-control")]


async def test_a_preflight_is_answered_with_methods_and_headers() -> None:
    asked = {
        "origin": "app://obsidian.md",
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type,x-api-key,anthropic-version,x-stainless-lang",
        "access-control-request-private-network": "true",
    }
    async with FakeDaemon().client() as client:
        response = await client.options("/v1/chat/completions", headers=asked)
    allowed = {name.strip().lower() for name in response.headers["access-control-allow-headers"].split(",")}
    assert response.status_code == 204
    assert not response.content
    assert response.headers["access-control-allow-origin"] == "app://obsidian.md"
    assert set(asked["access-control-request-headers"].split(",")) <= allowed
    assert {"POST", "DELETE"} <= set(response.headers["access-control-allow-methods"].split(", "))
    assert response.headers["access-control-allow-private-network"] == "true"


async def test_a_preflight_of_a_stranger_is_turned_away() -> None:
    async with FakeDaemon().client() as client:
        response = await client.options("/api/chat", headers={"origin": "https://evil.example.com"})
    assert response.status_code == 403
    assert "access-control-allow-origin" not in response.headers


async def test_the_settings_say_which_origins_and_address_hold() -> None:
    settings = Settings(
        server=ServerSettings(address=parse_host("0.0.0.0")),
        access=AccessSettings(origins=("https://chat.example.com",), insecure=True),
    )
    async with FakeDaemon(settings=settings).client() as client:
        response = await client.get(
            "/api/tags", headers={"host": "8.8.8.8:11434", "origin": "https://chat.example.com"}
        )
    assert response.headers["access-control-allow-origin"] == "https://chat.example.com"
