"""The hub's HTTP API on loopback, with files on a second port as on its CDN; it records what it is asked."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_right"


@dataclass(frozen=True)
class Asked:
    """One request, as it came."""

    method: str
    path: str
    headers: dict[str, str]


@dataclass
class FakeRepository:
    """A repository; `commit` makes its next version, and earlier ones stay."""

    id: str
    files: dict[str, bytes]
    gated: bool = False
    private: bool = False
    licence: str = "apache-2.0"
    large: Callable[[str], bool] = lambda path: path.endswith(".gguf")
    """Which files are kept apart by their SHA-256, as the hub does with large ones."""
    entries: list[object] = field(default_factory=list)
    """More of what its listing says."""
    lies: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By path, what its listing says instead of the truth."""
    gguf: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.commit({})

    def commit(self, changes: dict[str, bytes]) -> str:
        self.files = {**self.files, **changes}
        self.sha = hashlib.sha1(repr((self.id, len(self.versions))).encode()).hexdigest()
        self.versions[self.sha] = dict(self.files)
        return self.sha


@dataclass
class Behaviour:
    page_size: int = 1000
    statuses: list[int] = field(default_factory=list)
    """Statuses to answer the next requests to the API with."""
    api_body: bytes | None = None
    """Sent instead of every document."""
    next_page: Callable[[str], str] = lambda link: link
    """Changes the address of the next page."""
    endless_pages: bool = False
    granted: bool = True
    """Whether the token's owner has accepted the terms of gated repositories."""
    served: dict[str, bytes] = field(default_factory=dict)
    """By SHA-256, what the CDN sends instead of the file."""


class FakeHub:
    """`repositories` by id; `asked` of the hub, `asked_cdn` of the host with the files."""

    def __init__(self) -> None:
        self.repositories: dict[str, FakeRepository] = {}
        self.renamed: dict[str, str] = {}
        self.plain: dict[str, bytes] = {}
        """Files of the second host by their paths, besides those of repositories."""
        self.behaviour = Behaviour()
        self.asked: list[Asked] = []
        self.asked_cdn: list[Asked] = []
        self._may_answer = threading.Event()
        self._may_answer.set()
        self._servers = [ThreadingHTTPServer(("127.0.0.1", 0), _handler(answer)) for answer in (self._hub, self._cdn)]
        self._threads = [
            threading.Thread(target=lambda one=server: one.serve_forever(0.01)) for server in self._servers
        ]

    def add(self, id: str, files: dict[str, bytes], **more: Any) -> FakeRepository:
        self.repositories[id] = FakeRepository(id, files, **more)
        return self.repositories[id]

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._servers[0].server_address[1]}"

    @property
    def cdn(self) -> str:
        return f"http://127.0.0.1:{self._servers[1].server_address[1]}"

    @contextlib.contextmanager
    def running(self) -> Iterator[FakeHub]:
        for server, thread in zip(self._servers, self._threads, strict=True):
            server.daemon_threads = False
            thread.start()
        try:
            yield self
        finally:
            for server, thread in zip(self._servers, self._threads, strict=True):
                server.shutdown()
                server.server_close()
                thread.join()

    @contextlib.contextmanager
    def silent(self) -> Iterator[None]:
        """While this lasts, requests to the hub get no answer."""
        self._may_answer.clear()
        try:
            yield
        finally:
            self._may_answer.set()

    def _hub(self, request: _Request) -> None:
        self.asked.append(request.as_asked())
        self._may_answer.wait()
        parts = urlsplit(request.path)
        path = unquote(parts.path)
        query = parse_qs(parts.query)
        if path.startswith("/api/") and self.behaviour.statuses:
            request.answer(self.behaviour.statuses.pop(0))
        elif path.startswith("/api/") and self.behaviour.api_body is not None:
            request.answer(200, self.behaviour.api_body)
        elif path == "/api/models":
            request.answer_json(self._search(query.get("search", [""])[0], int(query["limit"][0])))
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)", path):
            self._info(request, match[1])
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", path):
            self._tree(request, match[1], match[2], int(query.get("cursor", ["0"])[0]))
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._file(request, match[1], match[2], match[3])
        else:
            request.answer(404)

    def _cdn(self, request: _Request) -> None:
        self.asked_cdn.append(request.as_asked())
        path = unquote(request.path.partition("?")[0])
        if path in self.plain:
            request.answer_range(self.plain[path], f'"{hashlib.sha256(self.plain[path]).hexdigest()}"')
            return
        digest = path.removeprefix("/")
        for repository in self.repositories.values():
            for files in repository.versions.values():
                for content in files.values():
                    if hashlib.sha256(content).hexdigest() == digest:
                        request.answer_range(self.behaviour.served.get(digest, content), f'"{digest}"')
                        return
        request.answer(404)

    def _open(self, request: _Request, id: str) -> FakeRepository | None:
        """The repository, if whoever asks may know of it."""
        repository = self.repositories.get(id)
        given = request.headers.get("Authorization")
        if given is not None and given != f"Bearer {TOKEN}":
            request.answer(401, headers={"X-Error-Message": "Invalid credentials in Authorization header"})
            return None
        if repository is None or (repository.private and given is None):
            request.answer(404 if given else 401, headers={"X-Error-Code": "RepoNotFound"})
            return None
        return repository

    def _info(self, request: _Request, id: str) -> None:
        if id in self.renamed:
            request.answer(307, headers={"Location": f"/api/models/{self.renamed[id]}"})
            return
        repository = self._open(request, id)
        if repository is not None:
            request.answer_json(self._described(repository))

    def _described(self, repository: FakeRepository) -> dict[str, Any]:
        return {
            "id": repository.id,
            "sha": repository.sha,
            "gated": "manual" if repository.gated else False,
            "downloads": 1000,
            "likes": 7,
            "tags": ["gguf", f"license:{repository.licence}"],
            "lastModified": "2026-01-02T03:04:05.000Z",
            "gguf": repository.gguf,
            "siblings": [{"rfilename": path} for path in repository.files],
        }

    def _tree(self, request: _Request, id: str, commit: str, start: int) -> None:
        repository = self._open(request, id)
        if repository is None:
            return
        if commit not in repository.versions:
            request.answer(404, headers={"X-Error-Code": "RevisionNotFound"})
            return
        entries: list[object] = [
            self._entry(repository, path, content) for path, content in repository.versions[commit].items()
        ]
        entries = [{"type": "directory", "path": "folder", "oid": "0" * 40, "size": 0}, *entries, *repository.entries]
        end = start + self.behaviour.page_size
        headers = {}
        if end < len(entries) or self.behaviour.endless_pages:
            cursor = 0 if self.behaviour.endless_pages else end
            link = f"{self.endpoint}/api/models/{id}/tree/{commit}?recursive=true&cursor={cursor}"
            headers["Link"] = f'<{self.behaviour.next_page(link)}>; rel="next"'
        request.answer_json(entries[start:end], headers)

    def _entry(self, repository: FakeRepository, path: str, content: bytes) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "type": "file",
            "oid": hashlib.sha1(content).hexdigest(),
            "size": len(content),
            "path": path,
        }
        if repository.large(path):
            entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
        return entry | repository.lies.get(path, {})

    def _file(self, request: _Request, id: str, commit: str, path: str) -> None:
        repository = self._open(request, id)
        if repository is None:
            return
        has_token = request.headers.get("Authorization") is not None
        if repository.gated and not (has_token and self.behaviour.granted):
            request.answer(403 if has_token else 401, headers={"X-Error-Code": "GatedRepo"})
            return
        content = repository.versions.get(commit, {}).get(path)
        if content is None:
            request.answer(404, headers={"X-Error-Code": "EntryNotFound"})
        elif repository.large(path):
            digest = hashlib.sha256(content).hexdigest()
            told = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(content)), "X-Repo-Commit": commit}
            request.answer(302, headers={"Location": f"{self.cdn}/{digest}?signature=secret", **told})
        else:
            request.answer_range(content, f'"{hashlib.sha1(content).hexdigest()}"')

    def _search(self, text: str, limit: int) -> list[dict[str, Any]]:
        found = [one for one in self.repositories.values() if text.lower() in one.id.lower() and not one.private]
        return [self._described(one) for one in found[:limit]]


class _Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def as_asked(self) -> Asked:
        return Asked(self.command, self.path, {name.lower(): value for name, value in self.headers.items()})

    def answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            with contextlib.suppress(OSError):
                self.wfile.write(body)

    def answer_json(self, document: object, headers: dict[str, str] | None = None) -> None:
        self.answer(200, json.dumps(document).encode(), {"Content-Type": "application/json", **(headers or {})})

    def answer_range(self, content: bytes, tag: str) -> None:
        headers = {"ETag": tag, "Accept-Ranges": "bytes"}
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if match is None or int(match[1]) >= len(content):
            self.answer(200, content, headers)
            return
        first, last = int(match[1]), min(int(match[2] or len(content)), len(content) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        self.answer(206, content[first : last + 1], headers)

    def log_message(self, *_: object) -> None:
        pass


def _handler(answer: Callable[[_Request], None]) -> type[_Request]:
    class Handler(_Request):
        def do_GET(self) -> None:
            answer(self)

        def do_HEAD(self) -> None:
            answer(self)

    return Handler
