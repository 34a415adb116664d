"""Which package indexes there are, and how they are reached, as pip's and uv's own configuration says."""

from __future__ import annotations

import configparser
import logging
import os
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from registry.sources.credentials import Credentials, Login

logger = logging.getLogger(__name__)

_TRUE = frozenset({"1", "true", "yes", "on", "y", "t"})


@dataclass(frozen=True)
class IndexSettings:
    """Addresses in the order in which they are asked; the logins in them are in `credentials`."""

    credentials: Credentials
    indexes: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    wants_default: bool = True
    """No index is configured and none is forbidden: the tooling's own default is meant."""
    ca_bundle: Path | None = None
    client_certificate: Path | None = None
    proxy: str | None = field(default=None, repr=False)
    trusted_hosts: frozenset[str] = frozenset()
    """`host` or `host:port` whose certificates are not checked."""


@dataclass(frozen=True)
class Places:
    """Where this machine keeps configuration."""

    home: Path
    prefix: Path
    """Of this Python's environment."""
    system: Path
    """For everyone on this machine, where that is one folder."""
    platform: str

    @classmethod
    def here(cls) -> Places:
        return cls(Path.home(), Path(sys.prefix), Path("/etc"), sys.platform)


def load_index_settings(environ: Mapping[str, str], places: Places) -> IndexSettings:
    """Read what pip and uv would read. Files that cannot be read are passed over with a logged warning."""
    pip = _read_pip(environ, places)
    uv = _read_uv(environ, places)
    credentials = Credentials(environ, places.home)
    for index in uv.indexes:
        login = _uv_login(index.name, environ)
        if login is not None:
            credentials.add(index.url, login)
    pip_off, uv_off = pip.get("no-index", "").lower() in _TRUE, uv.no_index
    defaults: list[str] = []
    extras: list[str] = []
    if not pip_off:
        defaults.extend(_words(pip.get("index-url")))
        extras.extend(_words(pip.get("extra-index-url")))
    if not uv_off:
        defaults.extend(index.url for index in uv.indexes if index.is_default)
        extras.extend(index.url for index in uv.indexes if not index.is_default)
    bundle = pip.get("cert") or _first(environ, "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
    return IndexSettings(
        credentials=credentials,
        indexes=_unique(credentials.strip(url) for url in [*defaults, *extras]),
        find_links=_unique(credentials.strip(url) for url in [*_words(pip.get("find-links")), *uv.find_links]),
        wants_default=not defaults and not pip_off and not uv_off,
        ca_bundle=Path(bundle).expanduser() if bundle else None,
        client_certificate=Path(pip["client-cert"]).expanduser() if pip.get("client-cert") else None,
        proxy=pip.get("proxy"),
        trusted_hosts=frozenset([*_words(pip.get("trusted-host")), *uv.insecure_hosts]),
    )


# --- pip ---


def _read_pip(environ: Mapping[str, str], places: Places) -> dict[str, str]:
    """pip's options, later sources over earlier ones: files, then PIP_ variables."""
    found: dict[str, str] = {}
    for path in _pip_files(environ, places):
        found |= _read_pip_file(path)
    for name, value in environ.items():
        if name.startswith("PIP_") and value:
            found[name.removeprefix("PIP_").lower().replace("_", "-")] = value
    return found


def _pip_files(environ: Mapping[str, str], places: Places) -> Iterator[Path]:
    named = environ.get("PIP_CONFIG_FILE")
    if named == os.devnull:
        return
    home = places.home
    if places.platform == "win32":
        if program_data := environ.get("PROGRAMDATA"):
            yield Path(program_data) / "pip" / "pip.ini"
        yield home / "pip" / "pip.ini"
        yield Path(environ.get("APPDATA") or home / "AppData" / "Roaming") / "pip" / "pip.ini"
        yield places.prefix / "pip.ini"
    else:
        if places.platform == "darwin":
            yield Path("/Library/Application Support/pip/pip.conf")
        for folder in reversed(_shared_folders(environ, places)):
            yield folder / "pip" / "pip.conf"
        yield places.system / "pip.conf"
        yield home / ".pip" / "pip.conf"
        if places.platform == "darwin":
            yield home / "Library" / "Application Support" / "pip" / "pip.conf"
        yield Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "pip" / "pip.conf"
        yield places.prefix / "pip.conf"
    if named:
        yield Path(named).expanduser()


def _read_pip_file(path: Path) -> dict[str, str]:
    parser = configparser.RawConfigParser()
    try:
        text = path.read_text("utf-8")
        parser.read_string(text)
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, configparser.Error):
        # The parser's own message would quote the line, which may hold a password.
        logger.warning("pip's configuration in %s cannot be read; it is passed over.", path)
        return {}
    found: dict[str, str] = {}
    for section in ("global", "install"):
        if parser.has_section(section):
            found |= {name.lower().replace("_", "-"): value for name, value in parser.items(section) if value}
    return found


# --- uv ---


@dataclass(frozen=True)
class _UvIndex:
    url: str = field(repr=False)
    name: str | None = None
    is_default: bool = False


@dataclass
class _Uv:
    indexes: list[_UvIndex] = field(default_factory=list)
    find_links: list[str] = field(default_factory=list)
    insecure_hosts: list[str] = field(default_factory=list)
    no_index: bool = False


def _read_uv(environ: Mapping[str, str], places: Places) -> _Uv:
    uv = _Uv(
        find_links=_words(environ.get("UV_FIND_LINKS", "").replace(",", " ")),
        insecure_hosts=_words(environ.get("UV_INSECURE_HOST")),
        no_index=environ.get("UV_NO_INDEX", "").lower() in _TRUE,
    )
    if default := _first(environ, "UV_DEFAULT_INDEX", "UV_INDEX_URL"):
        uv.indexes.append(_named_index(default, is_default=True))
    for word in [*_words(environ.get("UV_INDEX")), *_words(environ.get("UV_EXTRA_INDEX_URL"))]:
        uv.indexes.append(_named_index(word, is_default=False))
    for path in _uv_files(environ, places):
        _add_uv_file(uv, path)
    has_default = False
    kept = []
    for index in uv.indexes:
        # The first default wins: the environment over the user's file over the system's.
        if not (index.is_default and has_default):
            kept.append(index)
        has_default = has_default or index.is_default
    uv.indexes = kept
    return uv


def _uv_files(environ: Mapping[str, str], places: Places) -> Iterator[Path]:
    if environ.get("UV_NO_CONFIG", "").lower() in _TRUE:
        return
    if named := environ.get("UV_CONFIG_FILE"):
        yield Path(named).expanduser()
        return
    if places.platform == "win32":
        yield Path(environ.get("APPDATA") or places.home / "AppData" / "Roaming") / "uv" / "uv.toml"
        if program_data := environ.get("PROGRAMDATA"):
            yield Path(program_data) / "uv" / "uv.toml"
        return
    yield Path(environ.get("XDG_CONFIG_HOME") or places.home / ".config") / "uv" / "uv.toml"
    for folder in _shared_folders(environ, places):
        yield folder / "uv" / "uv.toml"
    yield places.system / "uv" / "uv.toml"


def _add_uv_file(uv: _Uv, path: Path) -> None:
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        logger.warning("uv's configuration in %s cannot be read; it is passed over.", path)
        return
    pip_table = document.get("pip")
    for table in (document, pip_table if isinstance(pip_table, dict) else {}):
        _add_uv_table(uv, table)


def _add_uv_table(uv: _Uv, table: Mapping[str, object]) -> None:
    indexes = table.get("index")
    for index in indexes if isinstance(indexes, list) else []:
        # An explicit index is only for packages that are pinned to it.
        if not isinstance(index, dict) or not isinstance(index.get("url"), str) or index.get("explicit") is True:
            continue
        if index.get("format") == "flat":
            uv.find_links.append(index["url"])
            continue
        name = index.get("name")
        uv.indexes.append(_UvIndex(index["url"], name if isinstance(name, str) else None, index.get("default") is True))
    if isinstance(url := table.get("index-url"), str):
        uv.indexes.append(_UvIndex(url, is_default=True))
    uv.indexes.extend(_UvIndex(url) for url in _strings(table.get("extra-index-url")))
    uv.find_links.extend(_strings(table.get("find-links")))
    uv.insecure_hosts.extend(_strings(table.get("allow-insecure-host")))
    uv.no_index = uv.no_index or table.get("no-index") is True


def _named_index(text: str, *, is_default: bool) -> _UvIndex:
    """uv allows `name=address`; an address alone may hold a `=` in its query, but not in front of `://`."""
    name, equals, url = text.partition("=")
    if equals and re.fullmatch(r"[A-Za-z0-9_.-]+", name):
        return _UvIndex(url, name, is_default)
    return _UvIndex(text, None, is_default)


def _uv_login(name: str | None, environ: Mapping[str, str]) -> Login | None:
    if name is None:
        return None
    stem = "UV_INDEX_" + re.sub(r"[^A-Z0-9]", "_", name.upper())
    user, password = environ.get(f"{stem}_USERNAME"), environ.get(f"{stem}_PASSWORD")
    return Login(user or "", password or "") if user or password else None


def _shared_folders(environ: Mapping[str, str], places: Places) -> list[Path]:
    named = environ.get("XDG_CONFIG_DIRS")
    return [Path(folder) for folder in named.split(":") if folder] if named else [places.system / "xdg"]


def _words(text: str | None) -> list[str]:
    return (text or "").split()


def _strings(value: object) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _first(environ: Mapping[str, str], *names: str) -> str | None:
    return next((environ[name] for name in names if environ.get(name)), None)


def _unique(values: Iterator[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))
