"""Splits generated text into answer, thinking and tool calls."""

from __future__ import annotations

from collections.abc import Sequence

from runner.chat.thinking import ThinkingTags
from runner.chat.tool_formats.calls import Piece, Sink
from runner.chat.tool_formats.format import ToolFormat
from runner.chat.tool_formats.source import BLANKS, Source, Steps, skip_blanks, take, until
from runner.chat.types import Tool


class OutputParser:
    """One answer's text in, its pieces out; how the text was cut makes no difference to what they add up to.

    Nothing is lost: what is neither thinking nor a call of one of `tools` comes out as content.
    """

    def __init__(
        self,
        *,
        thinking: ThinkingTags | None = None,
        begins_thinking: bool = False,
        tool_format: ToolFormat | None = None,
        tools: Sequence[Tool] = (),
    ) -> None:
        self._source = Source()
        self._sink = Sink({tool.name: tool for tool in tools})
        self._thinking = thinking
        self._begins_thinking = begins_thinking
        self._format = tool_format if tools or (tool_format and tool_format.is_always_read) else None
        self._steps = self._read()
        next(self._steps, None)

    @property
    def calls(self) -> int:
        """How many tool calls have begun."""
        return self._sink.calls

    def push(self, text: str) -> list[Piece]:
        self._source.push(text)
        next(self._steps, None)
        return self._sink.take()

    def finish(self) -> list[Piece]:
        """The pieces that waited for more text; call once, at the end."""
        self._source.is_ended = True
        for _ in self._steps:
            pass
        self._sink.finish()
        return self._sink.take()

    def _read(self) -> Steps[None]:
        if self._thinking is not None:
            yield from self._read_thinking(self._thinking)
        if self._format is not None:
            yield from self._format.read(self._source, self._sink)
        yield from until(self._source, (), self._sink.content)

    def _read_thinking(self, tags: ThinkingTags) -> Steps[None]:
        if not self._begins_thinking:
            yield from skip_blanks(self._source)
            if not (yield from take(self._source, tags.opening)):
                self._source.position = 0
                return
        yield from skip_blanks(self._source)
        thoughts = _WithoutEnd(self._sink)
        yield from until(self._source, (tags.closing,), thoughts)
        yield from skip_blanks(self._source)


class _WithoutEnd:
    """Passes thinking on without the white space at its end."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._blanks = ""

    def __call__(self, text: str) -> None:
        text = self._blanks + text
        kept = text.rstrip(BLANKS)
        self._blanks = text[len(kept) :]
        if kept:
            self._sink.thinking(kept)
