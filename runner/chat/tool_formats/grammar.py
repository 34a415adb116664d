"""The grammars that make calls of a format certain, in llguidance's dialect of Lark."""

from __future__ import annotations

from collections.abc import Sequence

from runner.chat.tool_formats.format import Grammar, ToolFormat
from runner.chat.tool_formats.terms import Terms
from runner.chat.types import Tool


def call_grammar(tool_format: ToolFormat, tools: Sequence[Tool], terms: Terms, *, is_parallel: bool) -> str:
    """What may follow the format's opening: one call, or as many as wanted, and nothing else."""
    body = tool_format.body(tools, terms, is_parallel)
    return "\n".join((f"start: {_calls(tool_format, body, terms, is_parallel)}", *body.rules))


def required_grammar(tool_format: ToolFormat, tools: Sequence[Tool], terms: Terms, *, is_parallel: bool) -> str:
    """A whole answer that is nothing but calls: at least one, and one only unless several are wanted."""
    body = tool_format.body(tools, terms, is_parallel)
    opening = terms.literal(tool_format.opening)
    return "\n".join((f"start: {opening} {_calls(tool_format, body, terms, is_parallel)}", *body.rules))


def _calls(tool_format: ToolFormat, body: Grammar, terms: Terms, is_parallel: bool) -> str:
    if not is_parallel or tool_format.many_in_body:
        return body.start
    again = terms.literal(tool_format.separator + tool_format.opening)
    return f"{body.start} ({again} {body.start})*"
