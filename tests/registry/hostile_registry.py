"""A registry of the tests' own: honest by itself, and as hostile as a test makes it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from registry.manifest import CONFIG_TYPE, LICENSE_LAYER, MANIFEST_TYPE, MODEL_LAYER
from tests.registry.gguf_bytes import tiny_gguf

_PIECE = 64 * 1024

CONFIG = b'{"model_format":"gguf"}'
LICENCE = b"be good"
WEIGHTS = tiny_gguf() + bytes(range(256)) * 4000


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    """By names in lower case."""
    body: bytes = b""
    target: str = ""
    """Path and query as they came."""


@dataclass
class Reply:
    """`body` may be endless; without `length` it ends with the connection."""

    status: int = 200
    body: bytes | Iterable[bytes] = b""
    headers: dict[str, str] = field(default_factory=dict)
    length: bool = True


Interference = Callable[[Request], "Reply | None"]


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def layer(content: bytes, kind: str, **other: object) -> dict[str, object]:
    return {"mediaType": kind, "digest": digest_of(content), "size": len(content), **other}


def manifest(**other: object) -> dict[str, object]:
    """A sound manifest of the model above, with some fields changed."""
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": layer(CONFIG, CONFIG_TYPE),
        "layers": [layer(WEIGHTS, MODEL_LAYER), layer(LICENCE, LICENSE_LAYER)],
        **other,
    }


@dataclass
class HostileRegistry:
    """Has one model under every name. `interfere` may answer first; `requests` lists what was asked."""

    interfere: Interference = lambda request: None
    blobs: dict[str, bytes] = field(default_factory=lambda: {digest_of(one): one for one in (CONFIG, LICENCE, WEIGHTS)})
    manifest: bytes = field(default_factory=lambda: json.dumps(manifest()).encode())
    manifest_headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": MANIFEST_TYPE})
    cuts: list[int] = field(default_factory=list)
    """After so many bytes of a chunk each of the next uploads breaks off; what has come is kept."""
    pushed: list[bytes] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    uploaded: int = 0
    """Bytes of blobs that have come."""
    host: str = ""

    def __post_init__(self) -> None:
        self._sessions: dict[str, bytearray] = {}

    def asked(self, method: str, part: str) -> list[Request]:
        return [one for one in self.requests if one.method == method and part in one.path]

    @contextlib.contextmanager
    def running(self) -> Iterator[HostileRegistry]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        server.daemon_threads = True
        server.block_on_close = False
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        self.host = f"127.0.0.1:{server.server_address[1]}"
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    def answer(self, request: Request, read: Callable[[int], bytes]) -> Reply | None:
        """What an honest registry answers; None breaks the connection off."""
        kind = next((one for one in ("/manifests/", "/blobs/uploads/", "/blobs/") if one in request.path), "")
        if request.path == "/v2/":
            return Reply(200, b"{}")
        if kind == "/blobs/uploads/":
            return self._upload(request, read)
        if kind == "/manifests/" and request.method == "PUT":
            self.pushed.append(request.body)
            return Reply(201, headers={"Docker-Content-Digest": digest_of(request.body)})
        if kind == "/manifests/":
            return Reply(200, self.manifest, self.manifest_headers)
        if kind == "/blobs/":
            return _ranged(request, self.blobs.get(request.path.rpartition("/")[2]))
        return Reply(404)

    def open_upload(self) -> str:
        """Where a new upload goes on."""
        name = str(len(self._sessions))
        self._sessions[name] = bytearray()
        return f"/v2/me/any/blobs/uploads/{name}"

    def _upload(self, request: Request, read: Callable[[int], bytes]) -> Reply | None:
        name = request.path.rpartition("/")[2]
        if request.method == "POST":
            return Reply(202, headers={"Location": self.open_upload()})
        session = self._sessions.get(name)
        if session is None:
            return Reply(404)
        if request.method in ("PATCH", "PUT"):
            wanted = request.headers.get("content-range")
            if wanted is not None and int(wanted.partition("-")[0]) != len(session):
                return Reply(416)
            limit = self.cuts.pop(0) if self.cuts and request.method == "PATCH" else None
            content = read(1 << 30 if limit is None else limit)
            session += content
            self.uploaded += len(content)
            if limit is not None:
                return None
        if request.method == "PUT":
            expected = request.query.get("digest", "")
            if digest_of(bytes(session)) != expected:
                return Reply(400, b'{"errors":[{"code":"DIGEST_INVALID","message":"not these bytes"}]}')
            self.blobs[expected] = bytes(session)
            return Reply(201)
        status = 202 if request.method == "PATCH" else 204
        return Reply(status, headers={"Location": request.path, "Range": f"0-{max(0, len(session) - 1)}"})


def _ranged(request: Request, content: bytes | None) -> Reply:
    if content is None:
        return Reply(404)
    wanted = request.headers.get("range", "").removeprefix("bytes=")
    if not wanted:
        return Reply(200, content)
    first, _, last = wanted.partition("-")
    start, end = int(first), min(len(content), int(last) + 1 if last else len(content))
    return Reply(206, content[start:end], {"Content-Range": f"bytes {start}-{end - 1}/{len(content)}"})


def _handler_of(registry: HostileRegistry) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one_request(self) -> None:
            with contextlib.suppress(OSError):
                super().handle_one_request()

        def _answer(self) -> None:
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Request(self.command, parts.path, query, headers, target=self.path)
            registry.requests.append(request)
            self._left = int(headers.get("content-length", "0"))
            if "/uploads/" not in request.path:
                request.body = self._read(1 << 30)
            reply = registry.interfere(request) or registry.answer(request, self._read)
            if reply is None:
                self.close_connection = True
                return
            self._read(1 << 30)
            self._send(reply)

        def _read(self, limit: int) -> bytes:
            """As much of the body as is left, or the limit allows."""
            content = self.rfile.read(min(self._left, limit))
            self._left -= len(content)
            return content

        def _send(self, reply: Reply) -> None:
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            pieces = [reply.body] if isinstance(reply.body, bytes) else reply.body
            if isinstance(reply.body, bytes) and reply.length:
                if reply.status not in (204, 304) and "Content-Length" not in reply.headers:
                    self.send_header("Content-Length", str(len(reply.body)))
            else:
                self.send_header("Connection", "close")
                self.close_connection = True
            self.end_headers()
            if self.command != "HEAD":
                for piece in pieces:
                    self.wfile.write(piece)

        def log_message(self, format: str, *args: Any) -> None:
            pass

        do_GET = do_HEAD = do_POST = do_PATCH = do_PUT = _answer

    return Handler
