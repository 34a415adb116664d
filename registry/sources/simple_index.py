"""Package index pages: the simple API as JSON or HTML, and plain pages and folders of links."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import Version

from registry.errors import SourceError

ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
MAX_PAGE_BYTES = 64 * 1024 * 1024
_MAX_LINKS = 200_000
_SHA256 = re.compile(r"(?:^|&)sha256=([0-9a-fA-F]{64})(?:&|$)")


@dataclass(frozen=True, slots=True)
class WheelLink:
    """A wheel that a page offers."""

    file_name: str
    url: str = field(repr=False)
    sha256: str | None


def read_page(content_type: str, body: bytes, base: str) -> list[WheelLink]:
    """The files of a page, in its order. Raises SourceError for a page that is neither JSON nor HTML."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind in ("application/vnd.pypi.simple.v1+json", "application/json"):
        return _read_json(body, base)
    if kind in ("application/vnd.pypi.simple.v1+html", "text/html", "application/xhtml+xml", ""):
        return _read_html(body.decode("utf-8", "replace"), base)
    raise SourceError(f"The package index answers with {kind[:60]!a}, which is no index page.")


def choose_wheels(links: list[WheelLink], distribution: str, version: str) -> list[WheelLink]:
    """The wheels of that very version, those for every machine first."""
    wanted = canonicalize_name(distribution), Version(version)
    found: list[tuple[bool, WheelLink]] = []
    for link in links:
        try:
            name, its_version, _, tags = parse_wheel_filename(link.file_name)
        except (InvalidWheelFilename, ValueError):
            continue
        if (name, its_version) == wanted:
            found.append((all(tag.platform != "any" for tag in tags), link))
    return [link for _, link in sorted(found, key=lambda one: one[0])]


def file_name_of(url: str) -> str:
    return unquote(urlsplit(url).path.rpartition("/")[2])


def _read_json(body: bytes, base: str) -> list[WheelLink]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise SourceError("The package index answers with JSON that cannot be read.") from None
    files = document.get("files") if isinstance(document, dict) else None
    if not isinstance(files, list):
        raise SourceError("The package index answers with JSON that lists no files.")
    links = []
    for file in files[:_MAX_LINKS]:
        if not isinstance(file, dict):
            continue
        name, url, hashes = file.get("filename"), file.get("url"), file.get("hashes")
        if isinstance(name, str) and isinstance(url, str):
            sha256 = hashes.get("sha256") if isinstance(hashes, Mapping) else None
            links.append(WheelLink(name, _joined(base, url), sha256 if isinstance(sha256, str) else None))
    return links


def _read_html(text: str, base: str) -> list[WheelLink]:
    parser = _Anchors()
    parser.feed(text)
    links = []
    for reference in parser.references[:_MAX_LINKS]:
        url, fragment = urldefrag(_joined(_joined(base, parser.base), reference))
        match = _SHA256.search(fragment)
        links.append(WheelLink(file_name_of(url), url, match.group(1).lower() if match else None))
    return links


def _joined(base: str, url: str) -> str:
    try:
        return urljoin(base, url)
    except ValueError:
        return base


class _Anchors(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.base = ""
        self.references: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        reference = dict(attrs).get("href")
        if not reference:
            return
        if tag == "a":
            self.references.append(reference)
        elif tag == "base" and not self.base:
            self.base = reference
