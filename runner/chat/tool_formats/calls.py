"""Where readers put what they find: text, and tool calls piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from runner.chat.types import Tool


@dataclass(frozen=True, slots=True)
class Content:
    text: str


@dataclass(frozen=True, slots=True)
class Thinking:
    text: str


@dataclass(frozen=True, slots=True)
class CallStarted:
    """The next call; calls are counted from 0."""

    index: int
    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """More of the JSON text of a call's arguments."""

    index: int
    text: str


Piece = Content | Thinking | CallStarted | CallArguments


class Sink:
    """Collects the pieces of one answer; a reader writes, the output parser takes them out."""

    def __init__(self, tools: Mapping[str, Tool]) -> None:
        self.tools = tools
        self.calls = 0
        self._pieces: list[Piece] = []
        self._blanks = ""
        """White space that is dropped when a call follows, so that no stray newline is left beside it."""

    def content(self, text: str) -> None:
        text = self._blanks + text
        kept = len(text.rstrip())
        self._blanks = text[kept:]
        if kept:
            self._pieces.append(Content(text[:kept]))

    def thinking(self, text: str) -> None:
        self._pieces.append(Thinking(text))

    def start_call(self, name: str) -> Callable[[str], None] | None:
        """Begin a call; the function takes its arguments' JSON text. None when no such tool was declared."""
        if name not in self.tools:
            return None
        index = self.calls
        self.calls += 1
        self._blanks = ""
        self._pieces.append(CallStarted(index, name))
        return lambda text: self._pieces.append(CallArguments(index, text)) if text else None

    def finish(self) -> None:
        """Nothing more comes: white space at the end of a plain answer belongs to it."""
        if self._blanks and not self.calls:
            self._pieces.append(Content(self._blanks))
        self._blanks = ""

    def take(self) -> list[Piece]:
        pieces, self._pieces = self._pieces, []
        return pieces
