"""Several answers at once on one lease, their events in the order in which they come."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from registry.stored_model import StoredModel
from runner.chat.types import ChatEvent, ChatRequest, Failed, Finished
from runner.errors import ReportedError
from runner.loaded_model import LoadedModel
from runner.supervisor.lease import Lease
from runner.supervisor.stream import EventStream

logger = logging.getLogger(__name__)

UNREAD = 64
"""Events that may wait for a slow reader before its streams wait too."""

Choice = tuple[int, ChatEvent]
"""The number of an answer, and its next event."""


class Choices:
    """The events of several answers to one request.

    Iterating gives numbered events. It ends when every answer is Finished, or after the first
    Failed, which fails them all. `aclose` as of `Generation`, and so is when the model is given back.
    """

    def __init__(
        self,
        model: StoredModel,
        request: ChatRequest,
        ignored: tuple[str, ...],
        lease: Lease,
        streams: Sequence[EventStream],
        request_id: str,
    ) -> None:
        self.model = model
        self.request = request
        """The first of the requests; the others differ in prompt and seed."""
        self.ignored = ignored
        self.loaded: LoadedModel = lease.loaded
        self.load_ns: int = lease.load_ns
        self._lease = lease
        self._request_id = request_id
        self._events: asyncio.Queue[Choice] = asyncio.Queue(UNREAD)
        self._open = len(streams)
        self._first: Choice | None = None
        self._pumps = [asyncio.create_task(self._pump(number, stream)) for number, stream in enumerate(streams)]

    async def begin(self) -> None:
        """Wait for the first event, which iterating then gives; raises what it fails with."""
        first = await anext(self)
        if isinstance(first[1], Failed):
            raise ReportedError(first[1].code, first[1].message, first[1].facts)
        self._first = first

    def __aiter__(self) -> Choices:
        return self

    async def __anext__(self) -> Choice:
        first, self._first = self._first, None
        if first is not None:
            return first
        if not self._open:
            raise StopAsyncIteration
        choice = await self._events.get()
        if isinstance(choice[1], Finished):
            self._open -= 1
        elif isinstance(choice[1], Failed):
            self._open = 0
        if not self._open:
            self._lease.release()
        return choice

    async def aclose(self) -> None:
        if self._open:
            logger.info("request %s is cancelled", self._request_id)
            self._open = 0
        for pump in self._pumps:
            pump.cancel()
        self._lease.release()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    async def _pump(self, number: int, stream: EventStream) -> None:
        async for event in stream:
            await self._events.put((number, event))
