"""How the answers of a chat template's model are written: its tool-call format and its thinking tags."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from runner.chat.thinking import ThinkingTags, find_thinking_tags
from runner.chat.tool_formats.choose import choose_format
from runner.chat.tool_formats.format import ToolFormat
from runner.chat.tool_formats.generic import GENERIC


@dataclass(frozen=True, slots=True)
class OutputFormat:
    calls: ToolFormat
    thinking: ThinkingTags | None

    @property
    def knows_tools(self) -> bool:
        """Whether the template itself shows tools, calls and results to the model."""
        return self.calls is not GENERIC

    @property
    def markers(self) -> tuple[str, ...]:
        """Texts that readers of answers look for; a vocabulary may have control tokens for them."""
        tags = (self.thinking.opening, self.thinking.closing) if self.thinking else ()
        return (*self.calls.markers, *tags)


@lru_cache(maxsize=64)
def output_format(template: str) -> OutputFormat:
    """By the marks in a chat template's source, Jinja or Go."""
    return OutputFormat(choose_format(template), find_thinking_tags(template))
