"""A finished answer, put together from its events."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from runner.chat.types import ChatEvent, Finished, ScoredToken, TextDelta, ThinkingDelta, ToolCall, ToolCallDelta

SourceT = TypeVar("SourceT")


@dataclass(frozen=True, slots=True)
class Answer(Generic[SourceT]):
    """A finished answer."""

    text: str
    finished: Finished
    generation: SourceT
    """For what it tells of the model; it is closed."""
    tokens: tuple[ScoredToken, ...] = ()
    """With their log-probabilities, if these were asked for."""
    thinking: str = ""
    calls: tuple[ToolCall, ...] = ()


@dataclass(slots=True)
class AnswerParts:
    """What has come of an answer so far."""

    _texts: list[str] = field(default_factory=list)
    _thoughts: list[str] = field(default_factory=list)
    _tokens: list[ScoredToken] = field(default_factory=list)
    _calls: list[tuple[str, str, list[str]]] = field(default_factory=list)

    def add(self, event: ChatEvent) -> None:
        """Take in one event; those that hold nothing of the answer are passed over."""
        if isinstance(event, TextDelta):
            self._texts.append(event.text)
            self._tokens += event.tokens
        elif isinstance(event, ThinkingDelta):
            self._thoughts.append(event.text)
        elif isinstance(event, ToolCallDelta):
            if event.name:
                self._calls.append((event.id, event.name, []))
            self._calls[event.index][2].append(event.arguments)

    def finish(self, finished: Finished, generation: SourceT) -> Answer[SourceT]:
        return Answer(
            "".join(self._texts),
            finished,
            generation,
            tuple(self._tokens),
            "".join(self._thoughts),
            tuple(ToolCall(call_id, name, "".join(arguments)) for call_id, name, arguments in self._calls),
        )
