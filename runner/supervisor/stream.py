"""EventStream: the events of one request, for one reader, whichever workers compute it."""

from __future__ import annotations

import array
import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

import msgspec

from runner.chat.types import LAST_EVENTS, CachedTokens, ChatEvent, Failed, Finished, Started
from runner.messages import Generate, Perform

PAUSE_ABOVE = 512
"""Unread events of one stream at which the worker is asked to compute nothing more for it."""
RESUME_BELOW = 128


class StreamOwner(Protocol):
    """Who has a stream computed, and hears what becomes of its reader."""

    def cancel(self, stream: EventStream) -> None: ...

    def pause(self, stream: EventStream) -> None: ...

    def resume(self, stream: EventStream) -> None: ...


class EventStream:
    """Ends after `Finished` or `Failed`.

    A reader that falls behind pauses its own request in the worker and nobody else's. What another
    worker needs to go on with the request is kept here: the request, and the tokens of its answer.
    """

    __slots__ = (
        "_began",
        "_command",
        "_events",
        "_is_over",
        "_reader",
        "_received",
        "_sent_ns",
        "_to_swallow",
        "deaths",
        "has_begun",
        "is_paused",
        "on_begun",
        "owner",
        "request_id",
        "taken",
    )

    def __init__(self, command: Generate | Perform) -> None:
        self.request_id = command.request_id
        self.owner: StreamOwner | None = None
        self.is_paused = False
        self.has_begun = False
        """The worker that has it now has told something of it."""
        self.on_begun: Callable[[], None] | None = None
        """Called once, when it begins or ends."""
        self.deaths = 0
        """Workers that died while they had it."""
        self.taken = array.array("i")
        """Tokens of the answer so far."""
        self._command = command
        self._events: deque[ChatEvent] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._is_over = False
        self._received = 0
        self._to_swallow = 0
        self._sent_ns = time.monotonic_ns()
        self._began: tuple[int, int] | None = None
        """When the answer began, and how many tokens of its prompt were cached."""

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> ChatEvent:
        events = self._events
        while not events:
            if self._is_over:
                raise StopAsyncIteration
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        event = events.popleft()
        if self.is_paused and len(events) < RESUME_BELOW:
            self.is_paused = False
            if self.owner is not None:
                self.owner.resume(self)
        if type(event) in LAST_EVENTS:
            self._is_over = True
            events.clear()
        return event

    async def aclose(self) -> None:
        """Give the request up: the worker forgets it, and a waiting reader sees the end."""
        self.cancel()

    def cancel(self) -> None:
        """As `aclose`, for callers that cannot await."""
        if not self._is_over:
            self._is_over = True
            self._events.clear()
            if self.owner is not None:
                self.owner.cancel(self)
            self._tell_begun()
            self._wake()

    @property
    def command(self) -> Generate | Perform:
        """What was asked for."""
        return self._command

    @property
    def was_heard_of(self) -> bool:
        """Whether any worker has told something of it."""
        return self._received > 0

    def next_command(self) -> Generate | Perform:
        """What to send to a worker, so that its events are those that have not come yet."""
        self.has_begun = False
        command = self._command
        if isinstance(command, Perform):
            return command  # its events say which input they are of: who reads them may see one twice
        if command.request.deterministic:
            # The same text to the bit only when all of it is computed again.
            self._to_swallow = self._received
            return command
        return msgspec.structs.replace(command, taken=tuple(self.taken)) if self.taken else command

    def push(self, event: ChatEvent) -> None:
        """One more event."""
        if self._is_over:
            return
        if not self.has_begun:
            self._begin(event)
        if self._to_swallow:
            self._to_swallow -= 1
            return
        if self.deaths and type(event) is Finished:
            event = self._in_all(event)
        self._received += 1
        self._events.append(event)
        self._wake()
        if len(self._events) > PAUSE_ABOVE and not self.is_paused:
            self.is_paused = True
            if self.owner is not None:
                self.owner.pause(self)

    def fail(self, failed: Failed) -> None:
        """No worker has it any more, and this is why."""
        self.owner = None
        self._to_swallow = 0
        self.push(failed)

    def _begin(self, event: ChatEvent) -> None:
        self.has_begun = True
        if type(event) is Started and self._began is None:
            self._began = (time.monotonic_ns(), event.cached_tokens)
        self._tell_begun()

    def _tell_begun(self) -> None:
        told, self.on_begun = self.on_begun, None
        if told is not None:
            told()

    def _in_all(self, event: Finished) -> Finished:
        """The end of an answer that several workers gave: the last of them knows only of its own part."""
        if self._began is None:
            return event
        began_ns, cached = self._began
        usage = event.usage
        told = usage.cache if usage.cached_tokens == cached else CachedTokens(live=cached)
        whole = msgspec.structs.replace(
            usage,
            cached_tokens=cached,
            cache=told,
            queued_ns=0,
            prompt_ns=began_ns - self._sent_ns,
            decode_ns=time.monotonic_ns() - began_ns,
        )
        return msgspec.structs.replace(event, usage=whole)

    def _wake(self) -> None:
        reader = self._reader
        if reader is not None and not reader.done():
            reader.set_result(None)
