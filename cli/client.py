"""DaemonClient: the REST API as Python calls.

Over the standard library's `http.client`: importing httpx alone takes twice as long as `puna list` may take in all.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import IO, Any, Generic, TypeVar, cast

from cli.address import DaemonAddress
from cli.errors import ApiError, CliError, DaemonUnreachable
from cli.version import VERSION
from cli.wire import AnswerRecord, Json, Message, ModelEntry, ProgressRecord, RunningModel, ShowReply

CONNECT_SECONDS = 5.0
REPLY_SECONDS = 120.0
"""For everything but streams, in which a model may be loading or a source be slow for as long as it takes."""
CHUNK_BYTES = 1024 * 1024

RecordT = TypeVar("RecordT")


class NotListening(DaemonUnreachable):
    """Nothing listens at the address."""


class DaemonClient:
    """Calls one daemon, each call on a connection of its own.

    Every method may raise ApiError for what the daemon refuses and DaemonUnreachable for what
    goes wrong on the way there. All block.
    """

    def __init__(self, address: DaemonAddress) -> None:
        self.address = address

    def version(self) -> str:
        """The daemon's version; NotListening when there is none."""
        return str(self._json("GET", "/api/version").get("version", ""))

    def is_healthy(self) -> bool:
        """Whether a daemon answers at the address and is ready."""
        try:
            with self._open("GET", "/healthz", None, CONNECT_SECONDS) as exchange:
                return exchange.response.status == http.client.OK
        except CliError:
            return False

    def models(self) -> list[ModelEntry]:
        return cast("list[ModelEntry]", self._json("GET", "/api/tags").get("models") or [])

    def running(self) -> list[RunningModel]:
        return cast("list[RunningModel]", self._json("GET", "/api/ps").get("models") or [])

    def show(self, name: str, *, verbose: bool = False) -> ShowReply:
        body: Json = {"model": name}
        if verbose:
            body["verbose"] = True
        return cast("ShowReply", self._json("POST", "/api/show", body))

    def copy(self, source: str, destination: str) -> None:
        self._json("POST", "/api/copy", {"source": source, "destination": destination})

    def delete(self, name: str) -> None:
        self._json("DELETE", "/api/delete", {"model": name})

    def load(self, name: str, *, keep_alive: str | int | None = None, options: Json | None = None) -> None:
        """Return when the model is loaded, or with keep_alive 0 is being unloaded."""
        body: Json = {"model": name, "stream": False}
        if keep_alive is not None:
            body["keep_alive"] = keep_alive
        if options:
            body["options"] = options
        self._json("POST", "/api/generate", body, timeout=None)

    def pull(self, name: str) -> RecordStream[ProgressRecord]:
        return self._stream("/api/pull", {"model": name})

    def create(self, recipe: Json) -> RecordStream[ProgressRecord]:
        return self._stream("/api/create", recipe)

    def generate(self, body: Json) -> RecordStream[AnswerRecord]:
        return self._stream("/api/generate", body)

    def chat(self, body: Json, messages: Sequence[Message]) -> RecordStream[AnswerRecord]:
        return self._stream("/api/chat", {**body, "messages": list(messages)})

    def has_blob(self, digest: str) -> bool:
        with self._open("HEAD", f"/api/blobs/{digest}", None, REPLY_SECONDS) as exchange:
            if exchange.response.status in (http.client.OK, http.client.NOT_FOUND):
                return exchange.response.status == http.client.OK
            raise _refusal(exchange.response.status, b"")

    def upload_blob(self, digest: str, size: int, file: IO[bytes], sent: Callable[[int], None]) -> None:
        """Send a file's `size` bytes; `sent` is told how many went out, each time."""
        chunks = iter(lambda: file.read(CHUNK_BYTES), b"")
        with self._open("POST", f"/api/blobs/{digest}", _Upload(size, chunks, sent), None) as exchange:
            _reply_of(exchange.response)

    def _json(self, method: str, path: str, body: Json | None = None, timeout: float | None = REPLY_SECONDS) -> Json:
        with self._open(method, path, body, timeout) as exchange:
            return _reply_of(exchange.response)

    def _stream(self, path: str, body: Json) -> RecordStream[Any]:
        exchange = self._open("POST", path, body, None)
        if exchange.response.status >= http.client.BAD_REQUEST:
            with exchange:
                _reply_of(exchange.response)
        return RecordStream(exchange)

    def _open(self, method: str, path: str, body: Json | _Upload | None, timeout: float | None) -> _Exchange:
        connection = self._connect()
        try:
            connection.timeout = timeout
            if connection.sock is not None:
                connection.sock.settimeout(timeout)
            if isinstance(body, _Upload):
                body.send(connection, path, _HEADERS)
            elif body is None:
                connection.request(method, path, headers=_HEADERS)
            else:
                payload = json.dumps(body).encode()
                connection.request(method, path, payload, {**_HEADERS, "Content-Type": "application/json"})
            return _Exchange(connection, connection.getresponse(), self.address)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise broken_connection(self.address, error) from error
        except BaseException:
            connection.close()
            raise

    def _connect(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self.address.scheme == "https" else http.client.HTTPConnection
        connection = kind(self.address.host, self.address.port, timeout=CONNECT_SECONDS)
        try:
            connection.connect()
        except ConnectionRefusedError:
            raise NotListening(f"No daemon answers at {self.address.url}. `puna serve` starts one.") from None
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise broken_connection(self.address, error) from error
        assert connection.sock is not None
        # A daemon on another machine may vanish without a word while an answer is awaited.
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return connection


class RecordStream(Generic[RecordT]):
    """The records of a streamed reply, as they arrive. Closing it early tells the daemon to stop.

    A record that tells an error is raised as ApiError.
    """

    def __init__(self, exchange: _Exchange) -> None:
        self._exchange = exchange
        self.ignored = exchange.response.getheader("X-Puna-Ignored") or ""
        """What the daemon did not honour, if it says so."""

    def __enter__(self) -> RecordStream[RecordT]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[RecordT]:
        response = self._exchange.response
        while line := self._exchange.read(response.readline):
            record = _parse(line)
            if "error" in record:
                raise _told_error(record)
            yield cast("RecordT", record)
        self.close()

    def close(self) -> None:
        self._exchange.close()


class _Exchange:
    """A connection and the reply on it."""

    def __init__(
        self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse, address: DaemonAddress
    ) -> None:
        self.response = response
        self._connection = connection
        self._address = address

    def __enter__(self) -> _Exchange:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, source: Callable[[], bytes]) -> bytes:
        try:
            return source()
        except (OSError, http.client.HTTPException) as error:
            raise broken_connection(self._address, error) from error

    def close(self) -> None:
        self.response.close()
        self._connection.close()


class _Upload:
    """A body whose size is known and whose bytes are read as they are sent."""

    def __init__(self, size: int, chunks: Iterable[bytes], sent: Callable[[int], None]) -> None:
        self._size = size
        self._chunks = chunks
        self._sent = sent

    def send(self, connection: http.client.HTTPConnection, path: str, headers: dict[str, str]) -> None:
        connection.putrequest("POST", path)
        for name, value in {**headers, "Content-Length": str(self._size)}.items():
            connection.putheader(name, value)
        connection.endheaders()
        try:
            for chunk in self._chunks:
                connection.send(chunk)
                self._sent(len(chunk))
        except (BrokenPipeError, ConnectionResetError):
            pass  # The daemon may have refused in the middle; then its reply is there to be read.


def broken_connection(address: DaemonAddress, error: Exception) -> DaemonUnreachable:
    """What a failure below the API means for people."""
    if isinstance(error, TimeoutError):
        return DaemonUnreachable(f"The daemon at {address.url} did not answer in time.")
    if isinstance(error, socket.gaierror):
        return DaemonUnreachable(f"The host {address.host!r} is not known. Check PUNA_HOST.")
    if isinstance(error, ConnectionError | http.client.IncompleteRead | http.client.RemoteDisconnected):
        return DaemonUnreachable(f"The daemon at {address.url} broke off in the middle; its log tells why. Try again.")
    if isinstance(error, http.client.HTTPException):
        return DaemonUnreachable(f"What answers at {address.url} does not speak HTTP. Check PUNA_HOST.")
    reason = getattr(error, "strerror", None) or type(error).__name__
    return DaemonUnreachable(f"The daemon at {address.url} cannot be reached ({reason}). Check PUNA_HOST.")


def _reply_of(response: http.client.HTTPResponse) -> Json:
    try:
        payload = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise DaemonUnreachable("The daemon broke off in the middle of its reply. Try again.") from error
    if response.status >= http.client.BAD_REQUEST:
        raise _refusal(response.status, payload)
    return _parse(payload) if payload else {}


def _refusal(status: int, payload: bytes) -> CliError:
    try:
        body = json.loads(payload)
    except ValueError:
        body = None
    if isinstance(body, dict) and "error" in body:
        return _told_error(body)
    return ApiError(f"The daemon refused the request with status {status}", "", {})


def _told_error(body: Json) -> ApiError:
    facts = {name: value for name, value in body.items() if name not in ("error", "code", "request_id")}
    return ApiError(str(body["error"]), str(body.get("code") or ""), facts, str(body.get("request_id") or ""))


def _parse(payload: bytes) -> Json:
    try:
        body = json.loads(payload)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise DaemonUnreachable("What answers there is not Puna's daemon. Check PUNA_HOST.")
    return body


_HEADERS = {"User-Agent": f"puna/{VERSION}", "Accept": "application/json, application/x-ndjson"}
