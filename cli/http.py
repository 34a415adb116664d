"""HTTP/1.1 for one request and its reply, over a socket.

The standard library's `http.client` would do, but its parser of headers is one for e-mail: importing
it takes as long as everything else in `puna list` together, and httpx takes four times that.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import IO

MAX_LINE_BYTES = 65536
MAX_HEADERS = 200
_PIECE_BYTES = 65536


class HttpError(Exception):
    """What came is not HTTP, or is more than anybody should send."""


class ConnectionBroken(HttpError):
    """The other side closed the connection before its reply was complete."""


class Connection:
    """A connection for one request. Closing it is the way to give up, also in the middle."""

    def __init__(self, scheme: str, host: str, port: int, timeout: float) -> None:
        """Connect; raises OSError."""
        self._host = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._socket = _connect(host, port, timeout)
        try:
            # What answers may vanish without a word while it is waited for.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if scheme == "https":
                import ssl

                self._socket = ssl.create_default_context().wrap_socket(self._socket, server_hostname=host)
        except BaseException:
            self._socket.close()
            raise

    def set_timeout(self, seconds: float | None) -> None:
        """How long one read or write may take; None for ever."""
        self._socket.settimeout(seconds)

    def send(self, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> None:
        """Send the head of a request and a body, or the beginning of one whose length `headers` tell."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._host}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self._socket.sendall("\r\n".join(lines).encode("ascii") + b"\r\n\r\n" + body)

    def send_more(self, chunks: Iterable[bytes]) -> None:
        """Send the rest of a body. Returns early when the other side no longer listens; it may have replied."""
        try:
            for chunk in chunks:
                self._socket.sendall(chunk)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def reply(self, method: str) -> Reply:
        """Wait for the reply's head. Raises OSError, HttpError."""
        return Reply(self._socket.makefile("rb"), has_body=method != "HEAD")

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class Reply:
    """Status and headers of a reply, and its body as it comes.

    Reading raises OSError, ConnectionBroken for a body that ends too early and HttpError for nonsense.
    """

    def __init__(self, source: IO[bytes], *, has_body: bool = True) -> None:
        self._source = source
        self.status, self._headers = _read_head(source)
        while 100 <= self.status < 200:
            self.status, self._headers = _read_head(source)
        self._has_body = has_body and self.status not in (204, 304)

    def header(self, name: str) -> str:
        """The value of a header, empty when it is absent."""
        return self._headers.get(name.lower(), "")

    def read(self) -> bytes:
        """The whole body, or what is left of it."""
        return b"".join(self._pieces())

    def lines(self) -> Iterator[bytes]:
        """The body line by line, each as soon as it is there."""
        rest = b""
        for piece in self._pieces():
            *lines, rest = (rest + piece).split(b"\n")
            yield from lines
        if rest:
            yield rest

    def close(self) -> None:
        self._source.close()

    def _pieces(self) -> Iterator[bytes]:
        if not self._has_body:
            return
        self._has_body = False
        if self.header("transfer-encoding"):
            if self.header("transfer-encoding").lower() != "chunked":
                raise HttpError("unknown transfer encoding")
            while size := _chunk_size(self._source):
                yield from self._exactly(size)
                if _read_line(self._source):
                    raise HttpError("a chunk is longer than it says")
            while _read_line(self._source):
                pass  # Trailing headers say nothing to us.
        elif self.header("content-length"):
            if not self.header("content-length").isdecimal():
                raise HttpError("a length that is no number")
            yield from self._exactly(int(self.header("content-length")))
        else:
            while piece := self._source.read1(_PIECE_BYTES):  # type: ignore[attr-defined]
                yield piece

    def _exactly(self, size: int) -> Iterator[bytes]:
        while size:
            piece: bytes = self._source.read1(min(size, _PIECE_BYTES))  # type: ignore[attr-defined]
            if not piece:
                raise ConnectionBroken
            size -= len(piece)
            yield piece


def _connect(host: str, port: int, timeout: float) -> socket.socket:
    if host == "127.0.0.1":
        # What create_connection does besides, names and families, costs an import and is not needed here.
        plain = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            plain.settimeout(timeout)
            plain.connect((host, port))
        except BaseException:
            plain.close()
            raise
        return plain
    return socket.create_connection((host, port), timeout)


def _read_head(source: IO[bytes]) -> tuple[int, dict[str, str]]:
    version, _, rest = _read_line(source).partition(b" ")
    status = rest[:3]
    if not version.startswith(b"HTTP/1.") or not status.isdigit() or rest[3:4].strip():
        raise HttpError("no status line")
    headers: dict[str, str] = {}
    for _ in range(MAX_HEADERS):
        line = _read_line(source)
        if not line:
            return int(status), headers
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    raise HttpError("too many headers")


def _chunk_size(source: IO[bytes]) -> int:
    digits = _read_line(source).partition(b";")[0].strip()
    try:
        size = int(digits, 16)
    except ValueError:
        size = -1
    if size < 0:
        raise HttpError("a chunk without its size")
    return size


def _read_line(source: IO[bytes]) -> bytes:
    line = source.readline(MAX_LINE_BYTES + 1)
    if not line.endswith(b"\n"):
        raise ConnectionBroken if len(line) <= MAX_LINE_BYTES else HttpError("a line that is too long")
    return line.rstrip(b"\r\n")
