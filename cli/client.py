"""DaemonClient: the REST API as Python calls."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar, cast

from cli.errors import ApiError, CliError, DaemonUnreachable, WrongUsage
from cli.http import Connection, ConnectionBroken, HttpError, Reply
from cli.version import VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO

    from cli.address import DaemonAddress
    from cli.wire import (
        AnswerRecord,
        BenchRecord,
        GarbageReply,
        Json,
        Message,
        ModelEntry,
        PartialEntry,
        ProgressRecord,
        PullPlanReply,
        RunningModel,
        SearchReply,
        ShowReply,
        SourceVerdict,
        VerifyRecord,
    )

CONNECT_SECONDS = 5.0
PROBE_SECONDS = 20.0
"""For the first question, whose answer is known at once: whoever keeps silent that long is no daemon."""
REPLY_SECONDS = 120.0
"""For everything but streams, in which a model may be loading or a source be slow for as long as it takes."""
CHUNK_BYTES = 1024 * 1024
_HEADERS = {"User-Agent": f"puna/{VERSION}", "Accept": "application/json, application/x-ndjson"}
RecordT = TypeVar("RecordT")


class NotListening(DaemonUnreachable):
    """Nothing listens at the address."""


class DaemonClient:
    """Calls one daemon, each call on a connection of its own.

    Every method may raise ApiError for what the daemon refuses and DaemonUnreachable for what
    goes wrong on the way there. All block.
    """

    def __init__(self, address: DaemonAddress, api_key: str | None = None) -> None:
        self.address = address
        self._headers = {**_HEADERS, "Authorization": f"Bearer {api_key}"} if api_key else _HEADERS

    def version(self) -> str:
        """The daemon's version; NotListening when there is none."""
        return str(self._json("GET", "/api/version", timeout=PROBE_SECONDS).get("version", ""))

    def is_healthy(self) -> bool:
        """Whether a daemon answers at the address and is ready, be it to ask for an API key."""
        try:
            with self._exchange("GET", "/healthz", timeout=CONNECT_SECONDS) as exchange:
                return exchange.reply.status in (200, 401)
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

    def delete(self, name: str, *, force: bool = False) -> None:
        self._json("DELETE", "/api/delete", {"model": name, "force": True} if force else {"model": name})

    def load(self, name: str, *, keep_alive: str | int | None = None, options: Json | None = None) -> None:
        """Return when the model is loaded, or with keep_alive 0 is being unloaded."""
        body: Json = {"model": name, "stream": False}
        if keep_alive is not None:
            body["keep_alive"] = keep_alive
        if options:
            body["options"] = options
        self._json("POST", "/api/generate", body, timeout=None)

    def pull(
        self, source: str, given_name: str | None = None, *, insecure: bool = False
    ) -> RecordStream[ProgressRecord]:
        """Fetch a model by its name or the address of its file, and install it under that or the given name."""
        body: Json = {"model": source, "insecure": True} if insecure else {"model": source}
        if given_name is not None:
            body["as"] = given_name
        return RecordStream(self._stream("/api/pull", body))

    def plan_pull(self, source: str, given_name: str | None = None, *, insecure: bool = False) -> PullPlanReply:
        """What a pull would fetch; nothing is."""
        body: Json = {"model": source, "dry_run": True, "stream": False}
        if insecure:
            body["insecure"] = True
        if given_name is not None:
            body["as"] = given_name
        return cast("PullPlanReply", self._json("POST", "/api/pull", body, timeout=None))

    def verify(self, name: str | None) -> RecordStream[VerifyRecord]:
        """Read a model's files again, or those of all; the last record tells what was found."""
        return RecordStream(self._stream("/api/verify", {"all": True} if name is None else {"model": name}))

    def repair(self, name: str) -> RecordStream[VerifyRecord]:
        return RecordStream(self._stream("/api/repair", {"model": name}))

    def bench(self, name: str) -> RecordStream[BenchRecord]:
        """Measure how fast a model is there; the last record but one tells."""
        return RecordStream(self._stream("/api/bench", {"model": name}))

    def collect_garbage(self, *, dry_run: bool) -> GarbageReply:
        return cast("GarbageReply", self._json("POST", "/api/gc", {"dry_run": dry_run}, timeout=None))

    def partials(self) -> list[PartialEntry]:
        return cast("list[PartialEntry]", self._json("GET", "/api/partials").get("partials") or [])

    def remove_partial(self, text: str) -> PartialEntry:
        return cast("PartialEntry", self._json("DELETE", "/api/partials", {"partial": text}))

    def push(self, name: str, *, insecure: bool = False) -> RecordStream[ProgressRecord]:
        """Send a model to the registry that its name tells."""
        body: Json = {"model": name, "insecure": True} if insecure else {"model": name}
        return RecordStream(self._stream("/api/push", body))

    def search(self, text: str, *, limit: int, hub: bool) -> SearchReply:
        from urllib.parse import urlencode

        query = urlencode({"q": text, "limit": limit, "hub": "true" if hub else "false"})
        return cast("SearchReply", self._json("GET", f"/api/search?{query}"))

    def outdated(self, names: Sequence[str]) -> list[SourceVerdict]:
        from urllib.parse import urlencode

        path = f"/api/outdated?{urlencode([('model', name) for name in names])}" if names else "/api/outdated"
        return cast("list[SourceVerdict]", self._json("GET", path, timeout=None).get("models") or [])

    def create(self, recipe: Json) -> RecordStream[ProgressRecord]:
        return RecordStream(self._stream("/api/create", recipe))

    def generate(self, body: Json) -> RecordStream[AnswerRecord]:
        return RecordStream(self._stream("/api/generate", body))

    def chat(self, body: Json, messages: Sequence[Message]) -> RecordStream[AnswerRecord]:
        return RecordStream(self._stream("/api/chat", {**body, "messages": list(messages)}))

    def has_blob(self, digest: str) -> bool:
        with self._exchange("HEAD", f"/api/blobs/{digest}") as exchange:
            if exchange.reply.status not in (200, 404):
                raise _refusal(exchange.reply.status, b"")
            return exchange.reply.status == 200

    def upload_blob(self, digest: str, size: int, file: IO[bytes], sent: Callable[[int], None]) -> None:
        """Send a file's `size` bytes; `sent` is told how many went out, each time."""

        def chunks() -> Iterator[bytes]:
            left = size
            while left and (chunk := file.read(min(left, CHUNK_BYTES))):
                yield chunk
                left -= len(chunk)
                sent(len(chunk))

        with self._exchange("POST", f"/api/blobs/{digest}", upload=(size, chunks()), timeout=None) as exchange:
            exchange.result()

    def _json(self, method: str, path: str, body: Json | None = None, timeout: float | None = REPLY_SECONDS) -> Json:
        with self._exchange(method, path, body, timeout=timeout) as exchange:
            return exchange.result()

    def _stream(self, path: str, body: Json) -> _Exchange:
        exchange = self._exchange("POST", path, body, timeout=None)
        if exchange.reply.status >= 400:
            with exchange:
                exchange.result()
        return exchange

    def _exchange(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        *,
        upload: tuple[int, Iterator[bytes]] | None = None,
        timeout: float | None = REPLY_SECONDS,
    ) -> _Exchange:
        """Send a request and wait for the head of its reply."""
        address = self.address
        try:
            connection = Connection(address.scheme, address.host, address.port, CONNECT_SECONDS)
        except ConnectionRefusedError:
            raise NotListening(f"No daemon answers at {address.url}. `puna serve` starts one.") from None
        except OSError as error:
            raise _unreachable(address, error) from error
        try:
            connection.set_timeout(timeout)
            if upload is not None:
                connection.send(method, path, {**self._headers, "Content-Length": str(upload[0])})
                connection.send_more(upload[1])
            elif body is None:
                connection.send(method, path, self._headers)
            else:
                payload = _encode(body)
                length = {"Content-Type": "application/json", "Content-Length": str(len(payload))}
                connection.send(method, path, self._headers | length, payload)
            return _Exchange(address, connection, connection.reply(method))
        except (OSError, HttpError) as error:
            connection.close()
            raise _unreachable(address, error) from error
        except BaseException:
            connection.close()
            raise


class RecordStream(Generic[RecordT]):
    """The records of a streamed reply, as they arrive. Closing it early tells the daemon to stop.

    A record that tells an error is raised as ApiError.
    """

    def __init__(self, exchange: _Exchange) -> None:
        self._exchange = exchange
        self.ignored = exchange.reply.header("X-Puna-Ignored")
        """What the daemon did not honour, if it says so."""

    def __enter__(self) -> RecordStream[RecordT]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[RecordT]:
        for record in self._exchange.records():
            if "error" in record:
                raise _told_error(record)
            yield cast("RecordT", record)

    def close(self) -> None:
        self._exchange.close()


class _Exchange:
    """A connection and the reply on it."""

    def __init__(self, address: DaemonAddress, connection: Connection, reply: Reply) -> None:
        self.reply = reply
        self._address = address
        self._connection = connection

    def __enter__(self) -> _Exchange:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def result(self) -> Json:
        """The JSON of the reply; raises ApiError when it tells one."""
        try:
            payload = self.reply.read()
        except (OSError, HttpError) as error:
            raise _unreachable(self._address, error) from error
        if self.reply.status >= 400:
            raise _refusal(self.reply.status, payload)
        return _parse(payload) if payload else {}

    def records(self) -> Iterator[Json]:
        """The records of a streamed reply, as they arrive."""
        try:
            for line in self.reply.lines():
                yield _parse(line)
        except (OSError, HttpError) as error:
            raise _unreachable(self._address, error) from error

    def close(self) -> None:
        self.reply.close()
        self._connection.close()


def _encode(body: Json) -> bytes:
    try:
        return json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise WrongUsage("What was typed is no text that can be sent: it is not UTF-8.") from None


def _unreachable(address: DaemonAddress, error: OSError | HttpError) -> DaemonUnreachable:
    """What a failure below the API means for people."""
    import socket

    if isinstance(error, TimeoutError):
        return DaemonUnreachable(f"The daemon at {address.url} did not answer in time.")
    if isinstance(error, socket.gaierror):
        return DaemonUnreachable(f"The host {address.host!r} is not known. Check PUNA_HOST.")
    if isinstance(error, ConnectionError | ConnectionBroken):
        return DaemonUnreachable(f"The daemon at {address.url} broke off in the middle; its log tells why. Try again.")
    if isinstance(error, HttpError):
        return DaemonUnreachable(f"What answers at {address.url} does not speak HTTP ({error}). Check PUNA_HOST.")
    reason = error.strerror or type(error).__name__
    return DaemonUnreachable(f"The daemon at {address.url} cannot be reached ({reason}). Check PUNA_HOST.")


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
