"""FakeDaemon: answers the API as told, over real sockets, and records what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cli.version import VERSION

TIMEOUT = 60
Json = dict[str, Any]
Body = Json | Iterable[Json] | bytes
"""A reply: one object, records of a stream (a generator may wait between them), or bytes as they are."""
Handler = Callable[[Any], "Body | Reply"]

SMOL: Json = {
    "name": "smol:latest",
    "model": "smol:latest",
    "modified_at": "2001-02-03T04:05:06.123456789+01:00",
    "size": 98_123_456,
    "digest": "0123456789abcdef" * 4,
    "details": {"format": "gguf", "family": "llama", "parameter_size": "135M", "quantization_level": "Q4_1"},
}
SUCCESS: list[Json] = [{"status": "writing manifest"}, {"status": "success"}]


@dataclass
class Reply:
    """A reply that is not simply 200."""

    body: Body = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False
    """End a stream without its last chunk, as a killed daemon does."""


def refusal(status: int, code: str, message: str, **facts: object) -> Reply:
    return Reply({"error": message, "code": code, "request_id": "r-1", **facts}, status)


def answer(*pieces: str, chat: bool = False, **final: object) -> list[Json]:
    """The records of an answer."""

    def record(text: str) -> Json:
        return {"message": {"role": "assistant", "content": text}} if chat else {"response": text}

    last = {**record(""), "done": True, "done_reason": "stop", **final}
    return [*({**record(piece), "done": False} for piece in pieces), last]


class FakeDaemon:
    """Set `routes["POST /api/chat"]` to a function of the request's JSON (bytes for blobs)."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        """Of each of them."""
        self.disconnected = threading.Event()
        """Set when a client has left while something was sent to it."""
        self.routes: dict[str, Handler] = {
            "GET /healthz": lambda _: {"status": "ok"},
            "GET /api/version": lambda _: {"version": VERSION},
            "GET /api/tags": lambda _: {"models": [SMOL]},
            "GET /api/ps": lambda _: {"models": []},
            "POST /api/show": lambda _: {"details": SMOL["details"], "model_info": {}, "capabilities": ["completion"]},
        }
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_for(self))
        self._server.daemon_threads = False
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._server.server_port}"

    @property
    def port(self) -> int:
        return self._server.server_port

    def asked(self, route: str) -> list[Any]:
        """The bodies of all requests of a route."""
        return [body for name, body in self.requests if name == route]

    def __enter__(self) -> FakeDaemon:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(TIMEOUT)


def _handler_for(daemon: FakeDaemon) -> type[BaseHTTPRequestHandler]:
    class RequestHandler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except ConnectionError:
                daemon.disconnected.set()
                self.close_connection = True

        def serve(self) -> None:
            payload = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            route = f"{self.command} {self.path}"
            is_json = self.headers.get("Content-Type") == "application/json"
            body = json.loads(payload) if is_json else payload
            daemon.requests.append((route, body))
            daemon.headers.append(dict(self.headers))
            handler = daemon.routes.get(route) or daemon.routes.get(f"{self.command} {self.path.rpartition('/')[0]}/*")
            result = handler(body) if handler else Reply(b"404 page not found", 404)
            reply = result if isinstance(result, Reply) else Reply(result)
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            if isinstance(reply.body, dict | bytes):
                content = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
                return
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for record in reply.body:
                line = json.dumps(record).encode() + b"\n"
                self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
            if not reply.cut:
                self.wfile.write(b"0\r\n\r\n")
            self.close_connection = True

        do_GET = do_POST = do_HEAD = do_DELETE = serve

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return RequestHandler
