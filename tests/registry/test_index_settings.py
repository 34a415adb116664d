"""Package indexes as pip and uv are configured, with logins kept to their own hosts."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import pytest

from registry.sources.credentials import Credentials, Login, shown
from registry.sources.default_index import find_default_index, read_address
from registry.sources.index_settings import IndexSettings, Places, load_index_settings


@pytest.fixture
def places(tmp_path: Path) -> Places:
    for name in ("home", "prefix", "etc"):
        (tmp_path / name).mkdir()
    return Places(tmp_path / "home", tmp_path / "prefix", tmp_path / "etc", "linux")


def load(places: Places, environ: Mapping[str, str] | None = None) -> IndexSettings:
    return load_index_settings(environ or {}, places)


def load_pip(places: Places, text: str, environ: Mapping[str, str] | None = None) -> IndexSettings:
    path = places.prefix / "pip.conf"
    path.write_text(text)
    return load(places, environ)


def test_nothing_configured_means_the_default(places: Places) -> None:
    settings = load(places, {"PIP_CONFIG_FILE": "/dev/null", "UV_NO_CONFIG": "1"})
    assert settings.indexes == ()
    assert settings.wants_default


def test_pip_files_are_read_and_later_ones_win(places: Places) -> None:
    (places.system / "pip.conf").write_text("[global]\nindex-url = http://system.test/simple\n")
    assert load(places).indexes == ("http://system.test/simple",)
    user = places.home / ".config" / "pip" / "pip.conf"
    user.parent.mkdir(parents=True)
    user.write_text("[global]\nindex-url = http://user.test/simple\nproxy = http://p:1\n")
    legacy = places.home / ".pip" / "pip.conf"
    legacy.parent.mkdir()
    legacy.write_text("[global]\nindex-url = http://legacy.test/simple\n")
    assert load(places).indexes == ("http://user.test/simple",)
    settings = load_pip(
        places,
        "[global]\nindex_url = http://site.test/simple\n"
        "extra-index-url =\n    http://one.test/simple\n    http://two.test/simple\n"
        "find-links = /wheels file:///more\ntrusted-host = odd.test\ncert = /ca.pem\n"
        "[install]\nindex-url = http://install.test/simple\n",
    )
    assert settings.indexes == ("http://install.test/simple", "http://one.test/simple", "http://two.test/simple")
    assert settings.find_links == ("/wheels", "file:///more")
    assert settings.trusted_hosts == {"odd.test"}
    assert settings.ca_bundle == Path("/ca.pem")
    assert settings.proxy == "http://p:1"
    assert not settings.wants_default


def test_the_environment_wins_over_files(places: Places) -> None:
    named = places.home / "named.conf"
    named.write_text("[global]\nindex-url = http://named.test/simple\nextra-index-url = http://more.test/simple\n")
    environ = {"PIP_CONFIG_FILE": str(named)}
    assert load(places, environ).indexes == ("http://named.test/simple", "http://more.test/simple")
    environ["PIP_INDEX_URL"] = "http://env.test/simple"
    assert load(places, environ).indexes == ("http://env.test/simple", "http://more.test/simple")


def test_without_pip_files_none_is_read(places: Places) -> None:
    settings = load_pip(places, "[global]\nindex-url = http://x.test/simple\n", {"PIP_CONFIG_FILE": "/dev/null"})
    assert settings.wants_default


def test_no_index_means_no_default_either(places: Places) -> None:
    settings = load(places, {"PIP_NO_INDEX": "1", "PIP_INDEX_URL": "http://x.test/simple", "PIP_FIND_LINKS": "/wheels"})
    assert (settings.indexes, settings.find_links, settings.wants_default) == ((), ("/wheels",), False)
    assert not load(places, {"UV_NO_INDEX": "true"}).wants_default


def test_uv_is_read_from_environment_and_files(places: Places) -> None:
    path = places.home / ".config" / "uv" / "uv.toml"
    path.parent.mkdir(parents=True)
    path.write_text(
        'find-links = ["/uv-wheels"]\n'
        '[[index]]\nname = "corp"\nurl = "https://corp.test/simple"\ndefault = true\n'
        '[[index]]\nname = "pinned"\nurl = "https://pinned.test/simple"\nexplicit = true\n'
        '[[index]]\nurl = "https://flat.test/wheels"\nformat = "flat"\n'
        '[[index]]\nurl = "https://second.test/simple"\n'
    )
    environ = {"UV_INDEX_CORP_USERNAME": "me", "UV_INDEX_CORP_PASSWORD": "secret"}
    settings = load(places, environ)
    assert settings.indexes == ("https://corp.test/simple", "https://second.test/simple")
    assert set(settings.find_links) == {"/uv-wheels", "https://flat.test/wheels"}
    assert settings.credentials.find("https://corp.test/other") == Login("me", "secret")
    assert settings.credentials.find("https://second.test/simple") is None
    environ |= {"UV_DEFAULT_INDEX": "https://env.test/simple", "UV_INDEX": "extra=https://extra.test/simple"}
    assert load(places, environ).indexes == (
        "https://env.test/simple",
        "https://extra.test/simple",
        "https://second.test/simple",
    )


def test_certificates_come_from_the_usual_variables(places: Places) -> None:
    environ = {"REQUESTS_CA_BUNDLE": "/r.pem", "CURL_CA_BUNDLE": "/c.pem"}
    assert load(places, environ).ca_bundle == Path("/r.pem")
    assert load(places, environ | {"SSL_CERT_FILE": "/s.pem"}).ca_bundle == Path("/s.pem")
    assert load(places, environ | {"PIP_CERT": "/p.pem"}).ca_bundle == Path("/p.pem")


def test_a_broken_file_is_passed_over_without_quoting_it(places: Places, caplog: pytest.LogCaptureFixture) -> None:
    uv = places.home / ".config" / "uv" / "uv.toml"
    uv.parent.mkdir(parents=True)
    uv.write_text("https://me:secret@x.test = [")
    with caplog.at_level(logging.WARNING):
        settings = load_pip(places, "index-url https://me:secret@x.test/\n")
    assert settings.wants_default
    assert caplog.text.count("cannot be read") == 2
    assert "secret" not in caplog.text


def test_a_login_in_an_address_is_kept_for_its_host_only(places: Places) -> None:
    settings = load(places, {"PIP_INDEX_URL": "https://me:p%40ss@corp.test/simple"})
    assert settings.indexes == ("https://corp.test/simple",)
    find = settings.credentials.find
    assert find("https://CORP.test/files/x.whl") == Login("me", "p@ss")
    for other in (
        "https://corp.test:8443/simple",
        "http://corp.test/simple",
        "https://corp.test.evil.test/",
        "https://x.corp.test/",
        "https://corp.test@evil.test/",
        "https://[broken",
        "https://corp.test:99999/",
        "file:///corp.test",
    ):
        assert find(other) is None
    assert "p%40ss" not in repr(settings)
    assert "p@ss" not in repr(settings)
    assert "p@ss" not in repr(find("https://corp.test/"))


def test_netrc_logins_are_found_by_host_and_kept_off_plain_http(tmp_path: Path) -> None:
    path = tmp_path / "secrets"
    path.write_text("machine corp.test login me password secret\n")
    path.chmod(0o600)
    credentials = Credentials({"NETRC": str(path)}, tmp_path)
    assert credentials.find("https://corp.test/simple") == Login("me", "secret")
    assert credentials.find("http://corp.test/simple") is None
    assert credentials.find("https://other.test/") is None
    path.write_text("not a netrc file")
    assert Credentials({"NETRC": str(path)}, tmp_path).find("https://corp.test/") is None


def test_an_address_in_a_message_holds_nothing_secret() -> None:
    assert shown("https://me:secret@corp.test/a/b?signature=secret#x") == "https://corp.test/a/b"
    assert "secret" not in shown("https://me:secret@[broken/")


def test_the_default_index_is_read_from_pip_without_running_it() -> None:
    source = 'from x import y\nPyPI = PackageIndex("https://index.test/", file_storage_domain="f")\n'
    assert read_address(source) == "https://index.test/simple"
    for text in ("", "PyPI = 3", "PyPI = f(host)", "other = f('https://x.test/')", "def (", "\0"):
        assert read_address(text) is None


def test_this_python_knows_a_default_index() -> None:
    address = find_default_index()
    assert address is not None
    assert address.startswith("https://")
    assert address.endswith("/simple")
