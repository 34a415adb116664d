"""A network with a certificate authority of its own and a proxy on the way, on loopback."""

from __future__ import annotations

import base64
import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest


@dataclass(frozen=True)
class Authority:
    """A certificate authority that nobody knows, and a server's certificate from it."""

    bundle: Path
    server: Path
    """Certificate and key of 127.0.0.1, in one file."""

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server)
        return context


def make_authority(folder: Path) -> Authority:
    """With the openssl program; skips the test where there is none."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("there is no openssl to make certificates with")
    folder.mkdir(parents=True, exist_ok=True)

    def run(*arguments: str) -> None:
        subprocess.run([program, *arguments], cwd=folder, check=True, capture_output=True)

    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    run("req", "-x509", *new_key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=Test authority")
    run("req", *new_key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=127.0.0.1")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    run(
        "x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-set_serial", "2", "-days", "2",
        "-extfile", "names", "-out", "server.crt",
    )  # fmt: skip
    whole = folder / "server.pem"
    whole.write_bytes((folder / "server.crt").read_bytes() + (folder / "server.key").read_bytes())
    return Authority(folder / "ca.pem", whole)


@dataclass
class Proxy:
    """Passes on plain requests and opens tunnels; `asked` lists what for."""

    login: tuple[str, str] | None = None
    forbids: bool = False
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = False
        self._thread = threading.Thread(target=lambda: self._server.serve_forever(0.01))

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    @contextlib.contextmanager
    def running(self) -> Iterator[Proxy]:
        self._thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()


def _handler(owner: Proxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 20

        def do_CONNECT(self) -> None:
            if not self._may_pass():
                return
            host, _, port = self.path.partition(":")
            with socket.create_connection((host, int(port)), timeout=20) as there:
                self.send_response(200)
                self.end_headers()
                back = threading.Thread(target=_copy, args=(there, self.connection))
                back.start()
                _copy(self.connection, there)
                back.join()
            self.close_connection = True

        def do_GET(self) -> None:
            if not self._may_pass():
                return
            target = urlsplit(self.path)
            connection = HTTPConnection(target.netloc, timeout=20)
            with contextlib.closing(connection):
                kept = {name: text for name, text in self.headers.items() if not name.lower().startswith("proxy-")}
                connection.request("GET", target.path, headers={**kept, "Connection": "close"})
                answer = connection.getresponse()
                self.send_response(answer.status)
                for name, text in answer.getheaders():
                    self.send_header(name, text)
                self.end_headers()
                with contextlib.suppress(OSError):
                    shutil.copyfileobj(answer, self.wfile)
            self.close_connection = True

        def _may_pass(self) -> bool:
            owner.asked.append(f"{self.command} {self.path}")
            if owner.forbids:
                self.send_error(403)
                return False
            wanted = base64.b64encode(":".join(owner.login).encode()).decode() if owner.login else None
            if wanted is None or self.headers.get("Proxy-Authorization") == f"Basic {wanted}":
                return True
            self.send_response(407)
            self.send_header("Proxy-Authenticate", "Basic")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return False

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    return Handler


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(65536):
            target.sendall(piece)
    for one in (source, target):
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
