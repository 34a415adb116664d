"""The grammars that make calls of a format certain, in llguidance's dialect of Lark."""

from __future__ import annotations

from collections.abc import Sequence

from runner.chat.tool_formats.format import Terms, ToolFormat
from runner.chat.types import Tool


def call_grammar(tool_format: ToolFormat, tools: Sequence[Tool], terms: Terms, *, is_parallel: bool) -> str:
    """What may follow the format's opening: one call, or all of them where one body holds them."""
    body = tool_format.body(tools, terms, is_parallel)
    return "\n".join((f"start: {body.start}", *body.rules))


def required_grammar(tool_format: ToolFormat, tools: Sequence[Tool], terms: Terms, *, is_parallel: bool) -> str:
    """A whole answer that is nothing but calls: at least one, and one only unless several are wanted."""
    body = tool_format.body(tools, terms, is_parallel)
    opening = terms.literal(tool_format.opening) if tool_format.opening else ""
    start = f"{opening} {body.start}"
    if is_parallel and not tool_format.many_in_body:
        again = terms.literal(tool_format.separator + tool_format.opening)
        start = f"{start} ({again} {body.start})*"
    return "\n".join((f"start: {start}", *body.rules))
