"""A control and a loop over a real engine, run by hand, and requests with media for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from runner.chat.media import Media, MediaKind
from runner.chat.types import ChatPrompt, ChatRequest, Failed, Finished, Limits, Message, TextDelta
from runner.engine import MediaPiece
from runner.llamacpp.engine import LlamaEngine
from runner.messages import CacheOptions, Events, Generate, Report
from runner.sampling import SamplingParams
from runner.worker.control import Control
from runner.worker.loop import Loop

GREEDY = SamplingParams(temperature=0)


def message(*media: bytes, text: str = "What is it?", kind: MediaKind = MediaKind.IMAGE, at: int = 0) -> Message:
    return Message("user", text, media=tuple(Media(kind, data, at, f"images[{n}]") for n, data in enumerate(media)))


def asking(*messages: Message, limits: Limits | None = None) -> ChatRequest:
    """Without guesses, which would change the shapes of steps as time goes by."""
    return ChatRequest(ChatPrompt(messages), GREEDY, limits or Limits(num_predict=8, num_draft=0))


@dataclass
class Worker:
    """A control and a loop over an engine, run by hand."""

    engine: LlamaEngine
    reports: list[Report] = field(default_factory=list)
    on_encode: Callable[[], None] = lambda: None
    cache: CacheOptions | None = None

    def __post_init__(self) -> None:
        # The clock stands still: nothing is measured, so that what is done does not depend on how busy this machine is.
        self.loop = Loop(self.engine, self.reports.append, cache=self.cache, clock=lambda: 1)
        self.encoded = 0
        self._encode = self.engine.encode_media
        self.engine.encode_media = self._count  # type: ignore[method-assign, assignment]  # counted on the way

    def _count(self, piece: MediaPiece) -> object:
        self.encoded += 1
        self.on_encode()
        return self._encode(piece)

    def ask(self, requests: dict[str, ChatRequest]) -> None:
        """Answer them all; what was computed stays for the next ones."""
        self.control = Control(self.engine, self.loop.post, self.reports.append)
        for name, request in requests.items():
            self.control.handle(Generate(name, request))
        self.control._pool.shutdown()
        self.loop.obey(wait=False)
        self._go_on()

    def wait_for(self, name: str) -> None:
        """Have what comes from elsewhere come, until a request has ended."""
        while not any(who == name and isinstance(event, Finished | Failed) for who, event in self.events):
            self.loop.obey(wait=True)
            self._go_on()

    def _go_on(self) -> None:
        while self.loop.step():
            self.loop.obey(wait=False)

    @property
    def events(self) -> list[tuple[str, object]]:
        return [event for report in self.reports if isinstance(report, Events) for event in report.events]

    def text(self, name: str) -> str:
        return "".join(event.text for who, event in self.events if who == name and isinstance(event, TextDelta))

    def end(self, name: str) -> Finished | Failed:
        [end] = [event for who, event in self.events if who == name and isinstance(event, Finished | Failed)]
        return end


def answers(engine: LlamaEngine, requests: dict[str, ChatRequest]) -> Worker:
    worker = Worker(engine)
    worker.ask(requests)
    return worker
