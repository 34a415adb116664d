"""Line: the requests that hold a model, across the lives of its workers."""

from __future__ import annotations

import logging
from collections import deque

from runner.chat.types import ChatRequest, Failed
from runner.errors import EngineCrashed
from runner.messages import Generate, Perform
from runner.supervisor.client import WorkerClient
from runner.supervisor.stream import EventStream
from runner.supervisor.suspects import Suspects
from runner.tasks import Task

logger = logging.getLogger(__name__)

MOST_DEATHS = 2
"""A request that was there so often when its worker died is not sent to another one."""


class Line:
    """Gives requests to the worker that there is; while there is none they wait. Belongs to the event loop's thread.

    A worker's death is a pause: its requests go to the next one, which goes on where they stood.
    """

    def __init__(self, model: str, suspects: Suspects) -> None:
        self._model = model
        self._suspects = suspects
        self._client: WorkerClient | None = None
        self._waiting: deque[EventStream] = deque()
        """In the order in which they are sent."""
        self._ended: Failed | None = None

    def generate(self, request_id: str, request: ChatRequest) -> EventStream:
        """Have a request answered; its events come out of the stream. Ids of running requests differ."""
        return self._open(Generate(request_id, request))

    def perform(self, request_id: str, task: Task) -> EventStream:
        """As `generate`, for a task that is no answer."""
        return self._open(Perform(request_id, task))

    def _open(self, command: Generate | Perform) -> EventStream:
        stream = EventStream(command)
        failed = self._ended or self._suspects.refusal(self._model, command)
        if failed is not None:
            stream.fail(failed)
        elif self._client is not None:
            self._client.start(stream)
        else:
            stream.owner = self
            self._waiting.append(stream)
        return stream

    def found(self, client: WorkerClient) -> None:
        """There is a worker: send what waits.

        Requests that no worker had begun with may be what it died of: they are sent last, each when the one before
        it has begun, so that not all of them are there when it happens again.
        """
        self._client = client
        unheard: deque[EventStream] = deque()
        while self._waiting:
            stream = self._waiting.popleft()
            if stream.deaths and not stream.was_heard_of:
                unheard.append(stream)
            else:
                client.start(stream)
        self._waiting = unheard
        self._send_next()

    def lost(self, ending: str) -> None:
        """The worker died, as `ending` says. Its requests wait for the next one, except those that saw two die."""
        assert self._client is not None
        client, self._client = self._client, None
        kept = []
        for stream in client.abandon():
            stream.on_begun = None
            stream.deaths += 1
            if stream.deaths < MOST_DEATHS:
                stream.owner = self
                kept.append(stream)
                continue
            logger.error("request %s: was under way both times when its worker died", stream.request_id)
            self._suspects.add(self._model, stream.command)
            message = (
                f"The model's process {ending} in the middle of this answer, as it did before: the request is not "
                "tried again."
            )
            stream.fail(Failed(EngineCrashed.code, message, {"model": self._model}))
        if kept:
            logger.warning("%s: %d requests go on when its process is there again", self._model, len(kept))
        self._waiting.extendleft(reversed(kept))

    def end(self, failed: Failed) -> None:
        """End all requests, and every one that is opened later, with `failed`."""
        self._ended = failed
        client, self._client = self._client, None
        waiting, self._waiting = self._waiting, deque()
        for stream in [*(client.abandon() if client is not None else ()), *waiting]:
            stream.on_begun = None
            stream.fail(failed)

    # --- as the owner of those that wait ---

    def cancel(self, stream: EventStream) -> None:
        if stream in self._waiting:
            self._waiting.remove(stream)

    def pause(self, stream: EventStream) -> None:
        """Its reader's pace is told to the worker that gets it."""

    def resume(self, stream: EventStream) -> None:
        """As `pause`."""

    def _send_next(self) -> None:
        if self._waiting and self._client is not None:
            stream = self._waiting.popleft()
            stream.on_begun = self._send_next
            self._client.start(stream)
