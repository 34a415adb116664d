"""A list of actions between `<|START_ACTION|>` marks, or in an `Action:` block: Command R, R7B and A."""

from __future__ import annotations

from collections.abc import Sequence

from runner.chat.tool_formats.calls import Sink
from runner.chat.tool_formats.format import Grammar, ToolFormat, json_calls, listed
from runner.chat.tool_formats.json_text import Keys
from runner.chat.tool_formats.regions import call_list
from runner.chat.tool_formats.source import Source, Steps, until
from runner.chat.tool_formats.terms import Terms
from runner.chat.types import Tool

_BEGIN, _END = "<|START_ACTION|>", "<|END_ACTION|>"
_BLOCK, _FENCE = "Action: ```json\n", "```"
_AROUND_TEXT = ("<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|START_TEXT|>", "<|END_TEXT|>")
_KEYS = Keys(name=("tool_name", "name"), arguments=("parameters", "arguments"))


def _is_in(template: str) -> bool:
    return _BEGIN in template


def _is_older_in(template: str) -> bool:
    return _BEGIN not in template and "Action:" in template and "tool_name" in template


def _read(source: Source, sink: Sink) -> Steps[None]:
    while marker := (yield from until(source, (_BEGIN, *_AROUND_TEXT), sink.content)):
        if marker == _BEGIN:
            yield from call_list(source, sink, source.position - len(_BEGIN), _END, _KEYS)


def _read_older(source: Source, sink: Sink) -> Steps[None]:
    while (yield from until(source, (_BLOCK,), sink.content)):
        yield from call_list(source, sink, source.position - len(_BLOCK), _FENCE, _KEYS)


def _body(tools: Sequence[Tool], terms: Terms, is_parallel: bool) -> Grammar:
    calls = json_calls(tools, terms, name_key="tool_name", arguments_key="parameters", extra='"tool_call_id": "0", ')
    return listed(terms, calls, is_parallel, "[\n    ", ",\n    ", f"\n]{_END}")


def _older_body(tools: Sequence[Tool], terms: Terms, is_parallel: bool) -> Grammar:
    calls = json_calls(tools, terms, name_key="tool_name", arguments_key="parameters")
    return listed(terms, calls, is_parallel, "[\n    ", ",\n    ", f"\n]{_FENCE}")


COMMAND_R = ToolFormat(
    "command_r",
    _is_in,
    _read,
    _body,
    opening=_BEGIN,
    many_in_body=True,
    markers=(_BEGIN, _END, *_AROUND_TEXT),
    is_always_read=True,
)
COMMAND_R_BLOCK = ToolFormat(
    "command_r_block", _is_older_in, _read_older, _older_body, opening=_BLOCK, many_in_body=True
)
