"""Answers that grow while they are sent, and what a client that leaves does to them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Generic, Protocol, TypeVar

import msgspec
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

NDJSON = "application/x-ndjson"
SERVER_SENT_EVENTS = "text/event-stream; charset=utf-8"
JSON = "application/json; charset=utf-8"

STALLED_SECONDS = 60.0
"""A reader that takes nothing for so long is given up: its place may be what others wait for."""

logger = logging.getLogger(__name__)

T = TypeVar("T")
EventT_co = TypeVar("EventT_co", covariant=True)
EventT = TypeVar("EventT")


class ClientGone(Exception):
    """The client closed its connection; nobody reads an answer."""


class EventSource(Protocol[EventT_co]):
    """Something to stream: an async iterator that can be ended early."""

    def __aiter__(self) -> AsyncIterator[EventT_co]: ...

    def __anext__(self) -> Awaitable[EventT_co]: ...

    def aclose(self) -> Awaitable[None]: ...


class Opened(Generic[EventT]):
    """A source whose first event has arrived, so that what went wrong before it is an exception already."""

    def __init__(self, first: EventT, rest: EventSource[EventT]) -> None:
        self._first: list[EventT] = [first]
        self._rest = rest

    @classmethod
    async def open(cls, source: EventSource[EventT]) -> Opened[EventT]:
        """Await the first event; closes the source when that fails. The source must have one."""
        try:
            return cls(await anext(source), source)
        except BaseException:
            await source.aclose()
            raise

    def __aiter__(self) -> Opened[EventT]:
        return self

    async def __anext__(self) -> EventT:
        return self._first.pop() if self._first else await anext(self._rest)

    async def aclose(self) -> None:
        await self._rest.aclose()


async def while_connected(receive: Receive, work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled when the client leaves first; raises ClientGone then.

    The request's body must have been read.
    """
    task = asyncio.ensure_future(work)
    watcher = asyncio.create_task(_disconnected(receive))
    try:
        await asyncio.wait((task, watcher), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        watcher.cancel()
        if not task.done():
            task.cancel()
        await asyncio.gather(task, watcher, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def ignored_header(names: Sequence[str]) -> dict[str, str]:
    """The header that lists what a client sent in vain; none when that is nothing."""
    listed = ", ".join(names)
    if not listed:
        return {}
    return {"X-Puna-Ignored": "".join(sign if " " <= sign <= "~" else "?" for sign in listed)[:1000]}


class JsonResponse(Response):
    """One JSON object."""

    media_type = JSON

    def __init__(self, content: object, status_code: int = 200, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(msgspec.json.encode(content), status_code, headers, JSON)


class StreamResponse(Response, Generic[EventT]):
    """Sends each event as its own record as soon as it is there.

    `encode` makes the record of an event, or nothing when the client is not told of it;
    `encode_error` the last record when the source raises. The source is closed in every case; a
    client that leaves closes it within one event, one that stays and reads nothing after
    `STALLED_SECONDS`.
    """

    def __init__(
        self,
        source: EventSource[EventT],
        encode: Callable[[EventT], bytes],
        encode_error: Callable[[Exception], bytes],
        media_type: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(None, 200, headers, media_type)
        del self.headers["content-length"]
        self.headers["cache-control"] = "no-cache"
        self._source = source
        self._encode = encode
        self._encode_error = encode_error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with contextlib.suppress(ClientGone):
                await while_connected(receive, self._pump(send))
        finally:
            await self._source.aclose()

    async def _pump(self, send: Send) -> None:
        await _send(send, {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        encode = self._encode
        try:
            async for event in self._source:
                if record := encode(event):
                    await _send(send, {"type": "http.response.body", "body": record, "more_body": True})
        except ClientGone:
            raise
        except Exception as error:
            await _send(send, {"type": "http.response.body", "body": self._encode_error(error), "more_body": True})
        await _send(send, {"type": "http.response.body", "body": b"", "more_body": False})


async def _send(send: Send, message: Message) -> None:
    """Send, for as long as the client takes anything; raises ClientGone."""
    try:
        async with asyncio.timeout(STALLED_SECONDS):
            await send(message)
    except TimeoutError:
        logger.warning("a client took nothing for %g seconds and is given up", STALLED_SECONDS)
        raise ClientGone from None
