"""A file server on loopback that behaves as it is told: cuts, stalls, resets, forgets ranges, changes its files."""

from __future__ import annotations

import contextlib
import random
import re
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_SEND_BYTES = 64 * 1024
_STEPS_PER_SECOND = 50
NOTHING = 1.0
"""A speed at which nothing comes, for as long as a test lasts."""


@dataclass
class Behaviour:
    """How files are served."""

    ranges: bool = True
    tag: str | None = '"one"'
    modified: str | None = None
    """When files were last changed, as the header says it."""
    length: bool = True
    """Say how long a whole file is; without it the body is sent in chunks."""
    cut_between: tuple[int, int] | None = None
    """Break each connection off after a random number of bytes between these."""
    resets: bool = False
    """Breaking off is done rudely."""
    stall_chance: float = 0.0
    """How often a connection goes silent instead of breaking off, until its reader leaves."""
    bytes_per_second: Callable[[int], float | None] = lambda connection: None
    """How fast the connection of that number is; None is as fast as it goes."""
    statuses: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    """Answers for the next requests, with their headers."""
    redirect: Callable[[str], str | None] = lambda path: None
    seen: Callable[[str], None] = lambda path: None
    """Called with the path of each request before it is answered."""


@dataclass
class Request:
    path: str
    headers: dict[str, str]

    @property
    def first(self) -> int | None:
        """The first byte asked for; None for a whole file."""
        match = re.match(r"bytes=(\d+)-", self.headers.get("range", ""))
        return int(match.group(1)) if match else None


class FileServer:
    """`files` by path. `requests` lists what was asked, `sent` counts bytes of bodies."""

    def __init__(self, seed: int = 1) -> None:
        self.files: dict[str, bytes] = {}
        self.behaviour = Behaviour()
        self.requests: list[Request] = []
        self.sent = 0
        self.stopping = threading.Event()
        self.lock = threading.Lock()
        self.random = random.Random(seed)
        self.connections = 0
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=lambda: self._server.serve_forever(0.01))
        self._scheme = "http"
        self.host = "127.0.0.1"

    @property
    def url(self) -> str:
        return f"{self._scheme}://{self.host}:{self._server.server_address[1]}"

    def protect(self, context: ssl.SSLContext) -> None:
        """Speak TLS from now on; to be called before it runs."""
        # The handshake is left to the connection's own thread.
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._scheme = "https"

    @contextlib.contextmanager
    def running(self) -> Iterator[FileServer]:
        self._thread.start()
        try:
            yield self
        finally:
            self.stopping.set()
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # connections that break are what these tests are about


def _handler(owner: FileServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 20

        def setup(self) -> None:
            super().setup()
            # Little is under way when a connection is reset, and so little is lost.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32 * 1024)
            with owner.lock:
                owner.connections += 1
                self.number = owner.connections
                between = owner.behaviour.cut_between
                self.budget = owner.random.randint(*between) if between else None

        def do_HEAD(self) -> None:
            content = owner.files.get(self.path.partition("?")[0])
            if content is None:
                self._head(404, {})
            else:
                self._start(200, {**self._validators(owner.behaviour), "Content-Length": str(len(content))})

        def do_GET(self) -> None:
            behaviour = owner.behaviour
            behaviour.seen(self.path)
            with owner.lock:
                owner.requests.append(Request(self.path, {name.lower(): text for name, text in self.headers.items()}))
                scripted = behaviour.statuses.pop(0) if behaviour.statuses else None
            target = behaviour.redirect(self.path)
            if scripted is not None:
                self._head(*scripted)
            elif target is not None:
                self._head(302, {"Location": target})
            elif self.path.partition("?")[0] not in owner.files:
                self._head(404, {})
            else:
                self._file(behaviour, owner.files[self.path.partition("?")[0]])

        def _file(self, behaviour: Behaviour, content: bytes) -> None:
            match = re.fullmatch(r"bytes=(\d*)-(\d+)", self.headers.get("Range", ""))
            headers = self._validators(behaviour)
            if match is None or not behaviour.ranges:
                if behaviour.length:
                    headers["Content-Length"] = str(len(content))
                else:
                    headers["Transfer-Encoding"] = "chunked"
                self._start(200, headers)
                self._body(behaviour, content, is_chunked=not behaviour.length)
                return
            if match.group(1):
                first, last = int(match.group(1)), min(int(match.group(2)), len(content) - 1)
            else:
                first, last = max(0, len(content) - int(match.group(2))), len(content) - 1
            if first > last:
                self._head(416, {"Content-Range": f"bytes */{len(content)}"})
                return
            headers |= {
                "Content-Range": f"bytes {first}-{last}/{len(content)}",
                "Content-Length": str(last + 1 - first),
            }
            self._start(206, headers)
            self._body(behaviour, memoryview(content)[first : last + 1], is_chunked=False)

        def _validators(self, behaviour: Behaviour) -> dict[str, str]:
            told = {"ETag": behaviour.tag, "Last-Modified": behaviour.modified}
            return {name: text for name, text in told.items() if text is not None}

        def _body(self, behaviour: Behaviour, content: bytes | memoryview, *, is_chunked: bool) -> None:
            at = 0
            while at < len(content):
                count = min(_SEND_BYTES, len(content) - at)
                speed = behaviour.bytes_per_second(self.number)
                if speed is not None:
                    count = min(count, max(1024, int(speed / _STEPS_PER_SECOND)))
                if self.budget is not None:
                    count = min(count, self.budget)
                    self.budget -= count
                if speed is not None and owner.stopping.wait(count / speed):
                    break
                piece = bytes(content[at : at + count])
                with owner.lock:
                    owner.sent += count  # before it is there, where somebody may ask for this number
                self.wfile.write(b"%x\r\n%s\r\n" % (count, piece) if is_chunked and count else piece)
                at += count
                if self.budget == 0 and at < len(content):
                    self._break_off(behaviour)
                    return
            if is_chunked:
                self.wfile.write(b"0\r\n\r\n")

        def _break_off(self, behaviour: Behaviour) -> None:
            self.close_connection = True
            with owner.lock:
                stalls = owner.random.random() < behaviour.stall_chance
            if stalls:
                self.connection.settimeout(0.05)
                while not owner.stopping.is_set():
                    with contextlib.suppress(TimeoutError):
                        if not self.connection.recv(1):
                            return
            elif behaviour.resets:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()

        def _head(self, status: int, headers: dict[str, str]) -> None:
            self._start(status, {"Content-Length": "0", **headers})

        def _start(self, status: int, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, text in headers.items():
                self.send_header(name, text)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    return Handler
