"""Pulling where certificates come from an authority of one's own, and where everything goes through a proxy."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from registry.errors import SourceError, SourceUnreachable
from tests.registry.downloads_rig import Rig, model_bytes
from tests.registry.file_server import FileServer
from tests.registry.guarded_network import Authority, Proxy, make_authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(autouse=True)
def _no_proxies_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture(params=["http", "https"])
def rig(request: pytest.FixtureRequest, tmp_path: Path, authority: Authority) -> Iterator[Rig]:
    server = FileServer()
    if request.param == "https":
        server.protect(authority.context())
    with server.running():
        rig = Rig(tmp_path, server, model_bytes(2_000_000))
        rig.options = replace(rig.options, ca_bundle=authority.bundle)
        yield rig


@pytest.fixture
def protected(tmp_path: Path, authority: Authority) -> Iterator[Rig]:
    server = FileServer()
    server.protect(authority.context())
    with server.running():
        yield Rig(tmp_path, server, model_bytes(200_000))


async def test_a_certificate_of_an_unknown_authority_is_refused_at_once_with_the_way_out(protected: Rig) -> None:
    begun = time.monotonic()
    with pytest.raises(SourceError, match=r"not accepted \(.*\).*PUNA_PULL_CA_BUNDLE or SSL_CERT_FILE"):
        await protected.pull()
    assert time.monotonic() - begun < 60
    assert protected.blobs == []


async def test_an_authority_of_ones_own_is_believed(protected: Rig, authority: Authority) -> None:
    protected.options = replace(protected.options, ca_bundle=authority.bundle)
    await protected.pull()
    protected.check_installed()


async def test_the_usual_variable_names_an_authority_too(
    protected: Rig, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.bundle))
    await protected.pull()
    protected.check_installed()


async def test_a_certificate_for_another_host_is_refused_whoever_made_it(protected: Rig, authority: Authority) -> None:
    protected.options = replace(protected.options, ca_bundle=authority.bundle)
    protected.server.host = "localhost"
    with pytest.raises(SourceError, match="not accepted"):
        await protected.pull()


async def test_a_bundle_that_is_none_is_told(protected: Rig, tmp_path: Path) -> None:
    (tmp_path / "bundle.pem").write_text("nothing")
    protected.options = replace(protected.options, ca_bundle=tmp_path / "bundle.pem")
    with pytest.raises(SourceError, match="certificates configured for downloads cannot be read"):
        await protected.pull()


async def test_everything_goes_through_the_proxy_that_is_configured(rig: Rig) -> None:
    with Proxy(login=("me", "s3cret")).running() as proxy:
        rig.options = replace(rig.options, proxy=f"http://me:s3cret@{proxy.host}")
        steps = await rig.pull()
        rig.check_installed()
        is_tunnel = rig.server.url.startswith("https")
        assert proxy.asked
        assert all(one.startswith("CONNECT" if is_tunnel else f"GET {rig.server.url}/") for one in proxy.asked)
        assert "s3cret" not in repr(steps) + repr(rig.options)


async def test_a_proxy_that_wants_a_login_is_told_at_once(rig: Rig) -> None:
    with Proxy(login=("me", "s3cret")).running() as proxy:
        rig.options = replace(rig.options, proxy=f"http://me:wr0ng@{proxy.host}")
        with pytest.raises(SourceError, match=r"wants a login \(status 407\); put it into PUNA_PULL_PROXY") as refused:
            await rig.pull()
        assert "wr0ng" not in refused.value.message
        assert len(proxy.asked) == 1


async def test_a_proxy_that_does_not_let_one_through_is_told_at_once(protected: Rig) -> None:
    with Proxy(forbids=True).running() as proxy:
        protected.options = replace(protected.options, proxy=proxy.url)
        with pytest.raises(SourceError, match=r"refuses to go there \(status 403\)"):
            await protected.pull()


async def test_a_proxy_that_is_not_there_is_told(rig: Rig) -> None:
    with Proxy().running() as proxy:
        gone = proxy.url
    rig.options = replace(rig.options, proxy=gone, idle_timeout_seconds=0.5)
    with pytest.raises(SourceUnreachable, match="cannot be reached"):
        await rig.pull()
    assert rig.server.requests == []


async def test_the_proxies_of_the_environment_are_used_but_for_hosts_that_are_left_out(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Proxy().running() as proxy:
        for name in ("HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        await rig.pull()
        assert proxy.asked
        rig.check_installed()
        rig.store.delete(rig.store.models()[0].name)
        proxy.asked.clear()
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        await rig.pull()
        assert proxy.asked == []
    rig.check_installed()
