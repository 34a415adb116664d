"""The whole answer is a list of Python calls: Llama 3.2 and 4, and LFM 2 between marks of its own."""

from __future__ import annotations

from collections.abc import Sequence

from runner.chat.tool_formats.calls import Sink
from runner.chat.tool_formats.format import Grammar, ToolFormat, listed
from runner.chat.tool_formats.python_calls import python_calls, read_python_calls
from runner.chat.tool_formats.source import Source, Steps, collect, skip_blanks, take, until
from runner.chat.tool_formats.terms import Terms
from runner.chat.types import Tool

_TAG, _TAG_END = "<|python_start|>", "<|python_end|>"
_LFM, _LFM_END = "<|tool_call_start|>", "<|tool_call_end|>"
_OLMO, _OLMO_END = "<function_calls>", "</function_calls>"


def _is_in(template: str) -> bool:
    return "[func_name1(" in template or (_TAG in template and "<|header_start|>" in template)


def _is_lfm_in(template: str) -> bool:
    return _LFM in template


def _is_olmo_in(template: str) -> bool:
    return _OLMO in template


def _read(source: Source, sink: Sink) -> Steps[None]:
    start = source.position
    yield from skip_blanks(source)
    yield from take(source, _TAG)
    yield from skip_blanks(source)
    if (yield from take(source, "[")) and (yield from read_python_calls(source, sink)):
        yield from skip_blanks(source)
        yield from take(source, "]")
        yield from skip_blanks(source)
        yield from take(source, _TAG_END)
    else:
        sink.content(source.since(start))
    yield from until(source, (), sink.content)


def _read_marked(source: Source, sink: Sink, opening: str, closing: str) -> Steps[None]:
    while (yield from until(source, (opening,), sink.content)):
        start = source.position - len(opening)
        yield from skip_blanks(source)
        yield from take(source, "[")
        count = yield from read_python_calls(source, sink)
        rest, _ = yield from collect(source, (closing,))
        if not count:
            sink.content(source.since(start))
        elif rest.strip(" \r\n\t]"):
            sink.content(rest)


def _read_lfm(source: Source, sink: Sink) -> Steps[None]:
    yield from _read_marked(source, sink, _LFM, _LFM_END)


def _read_olmo(source: Source, sink: Sink) -> Steps[None]:
    yield from _read_marked(source, sink, _OLMO, _OLMO_END)


def _body(tools: Sequence[Tool], terms: Terms, is_parallel: bool) -> Grammar:
    return listed(terms, python_calls(tools, terms), is_parallel, "[", ", ", "]")


def _lfm_body(tools: Sequence[Tool], terms: Terms, is_parallel: bool) -> Grammar:
    return listed(terms, python_calls(tools, terms), is_parallel, "[", ", ", f"]{_LFM_END}")


def _olmo_body(tools: Sequence[Tool], terms: Terms, is_parallel: bool) -> Grammar:
    return listed(terms, python_calls(tools, terms), is_parallel, "\n", "\n", f"\n{_OLMO_END}")


PYTHONIC = ToolFormat("pythonic", _is_in, _read, _body, separator="", many_in_body=True, markers=(_TAG, _TAG_END))
LFM = ToolFormat(
    "lfm", _is_lfm_in, _read_lfm, _lfm_body, opening=_LFM, separator="", many_in_body=True, markers=(_LFM, _LFM_END)
)
OLMO = ToolFormat(
    "olmo", _is_olmo_in, _read_olmo, _olmo_body, opening=_OLMO, separator="", many_in_body=True,
    markers=(_OLMO, _OLMO_END),
)  # fmt: skip
