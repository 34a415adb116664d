"""Responses that are made while nobody waits for them: started, looked at, followed as they grow, and cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass

from runner.api.errors import report_of
from runner.api.openai.responses_items import Item
from runner.api.openai.responses_object import ResponseFrame
from runner.api.openai.responses_stream import ResponseStream
from runner.api.openai.translate import Json
from runner.calls import Call
from runner.errors import InvalidRequest, QueueFull, RunnerError, ServerShutdown
from runner.generate import Generator

MOST_AT_ONCE = 64
"""That wait or are answered; more are refused."""
MOST_EVENT_BYTES = 16 << 20
"""Of one response. What is longer is kept as a whole and can no more be followed."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A response that has ended, well or badly."""

    response: Json
    read: Sequence[Item]
    output: Sequence[Item]
    events: Sequence[bytes]
    """Each with the number that is its place; none when they were too many."""


class BackgroundResponse:
    """One response that is being made, and the events that have told of it so far."""

    def __init__(
        self, frame: ResponseFrame, request_id: str, read: Sequence[Item], keep: Callable[[Ended], None]
    ) -> None:
        """`keep` is told once, in the end."""
        self.id = frame.id
        self.read = tuple(read)
        """All that the model reads for it."""
        self._keep = keep
        self._final: tuple[Json, Sequence[Item]] | None = None
        self._stream = stream = ResponseStream(frame, request_id, self._note_end)
        self._events: list[bytes] = []
        self._bytes = 0
        self._is_over = False
        self._followers = 0
        self._is_for_followers = False
        self._request_id = request_id
        self._why_ended: RunnerError | None = None
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._take(stream.wait())

    @property
    def response(self) -> Json:
        """As far as it has come."""
        return self._final[0] if self._final else self._stream.so_far()

    @property
    def can_be_followed(self) -> bool:
        return self._bytes <= MOST_EVENT_BYTES

    def start(self, generator: Generator, call: Call, forget: Callable[[], object]) -> None:
        """Begin to make it; `forget` is called when it was kept."""
        self._task = asyncio.create_task(self._make(generator, call), name=f"background {call.request_id}")
        self._task.add_done_callback(lambda _: self._end(forget))

    async def cancel(self) -> None:
        """End it and wait until it has ended; it may have come to its own end first."""
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def end_unless_followed(self) -> None:
        """The daemon stops: from now on it is made only as long as somebody follows it; otherwise it has failed."""
        self._is_for_followers = True
        self._end_if_unread()

    async def follow(self, after: int) -> AsyncGenerator[bytes, None]:
        """The events behind the one with this number, up to the last one."""
        place = after + 1
        self._followers += 1
        try:
            while True:
                if not self.can_be_followed:
                    raise InvalidRequest("This response has grown too long to be followed.", "stream")
                while place < len(self._events):
                    place += 1
                    yield self._events[place - 1]
                if self._is_over:
                    return
                await self._changed.wait()
        finally:
            self._followers -= 1
            self._end_if_unread()

    async def _make(self, generator: Generator, call: Call) -> None:
        try:
            generation = await generator.open(call)
            try:
                self._stream.opened(generation)
                async for event in generation:
                    self._take(self._stream.encode(event))
            finally:
                await generation.aclose()
        except Exception as error:
            self._take(self._stream.encode_error(report_of(error, call.request_id)))

    def _note_end(self, response: Json, output: Sequence[Item]) -> None:
        self._final = response, tuple(output)

    def _end(self, forget: Callable[[], object]) -> None:
        """Whatever has ended it: also a task that was cancelled before it began has ended."""
        if self._final is None and self._why_ended is not None:
            self._take(self._stream.encode_error(report_of(self._why_ended, self._request_id)))
        elif self._final is None:
            self._take(self._stream.encode_cancelled())
        assert self._final is not None
        response, output = self._final
        events = tuple(self._events) if self.can_be_followed else ()
        self._keep(Ended(response, self.read, output, events))
        forget()
        self._is_over = True
        self._tell()

    def _end_if_unread(self) -> None:
        if self._is_for_followers and not self._followers and self._task is not None and not self._task.done():
            self._why_ended = ServerShutdown()
            self._task.cancel()

    def _take(self, records: bytes) -> None:
        if self.can_be_followed:
            # No event has an empty line within.
            self._events += [record + b"\n\n" for record in records.split(b"\n\n") if record]
            self._bytes += len(records)
        else:
            self._events.clear()
        self._tell()

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


class BackgroundResponses:
    """Owns the responses that are being made; nobody finds another owner's."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator
        self._running: dict[tuple[str, str], BackgroundResponse] = {}
        self._is_stopping = False

    def start(self, owner: str, response: BackgroundResponse, call: Call) -> None:
        """Begin to make one. Raises QueueFull or ServerShutdown."""
        if self._is_stopping:
            raise ServerShutdown
        if len(self._running) >= MOST_AT_ONCE:
            raise QueueFull(f"{MOST_AT_ONCE} responses are being made in the background; try again later.")
        key = (owner, response.id)
        self._running[key] = response
        response.start(self._generator, call, lambda: self._running.pop(key, None))

    def stop(self) -> None:
        """The daemon stops: end what nobody follows. Those who ask for it while the daemon is there find it failed."""
        self._is_stopping = True
        for response in self._running.values():
            response.end_unless_followed()

    def find(self, owner: str, response_id: str) -> BackgroundResponse | None:
        return self._running.get((owner, response_id))
