"""Lease: a promise that a model stays loaded while it is used."""

from __future__ import annotations

from collections.abc import Callable

from runner.chat.types import ChatRequest
from runner.loaded_model import LoadedModel
from runner.supervisor.line import Line
from runner.supervisor.stream import EventStream
from runner.tasks import Task


class Lease:
    """One user's hold on a loaded model; an async context manager.

    When the worker dies its streams pause until there is another one. When there will be none, the lease
    stays harmless: its streams fail, and so does every new one.
    """

    def __init__(self, line: Line, loaded: LoadedModel, load_ns: int, on_release: Callable[[Lease], None]) -> None:
        self.loaded = loaded
        self.load_ns = load_ns
        """How long it took to get this lease: waiting for others and loading."""
        self._line = line
        self._on_release = on_release
        self._streams: list[EventStream] = []
        self._is_released = False

    def generate(self, request_id: str, request: ChatRequest) -> EventStream:
        """Start a generation; what goes wrong with it comes out of the stream as `Failed`."""
        self._check()
        return self._note(self._line.generate(request_id, request))

    def perform(self, request_id: str, task: Task) -> EventStream:
        """As `generate`, for a task that is no answer."""
        self._check()
        return self._note(self._line.perform(request_id, task))

    def release(self) -> None:
        """Give the model back; streams that have not ended are cancelled. More calls do nothing."""
        if not self._is_released:
            self._is_released = True
            for stream in self._streams:
                stream.cancel()
            self._on_release(self)

    def _check(self) -> None:
        if self._is_released:
            raise RuntimeError("a released lease was used")

    def _note(self, stream: EventStream) -> EventStream:
        self._streams.append(stream)
        return stream

    async def __aenter__(self) -> Lease:
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.release()
