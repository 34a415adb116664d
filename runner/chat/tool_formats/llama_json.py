"""The whole answer is a call, `{"name": …, "parameters": …}`, sometimes after `<|python_tag|>`: Llama 3.1 to 3.3."""

from __future__ import annotations

from collections.abc import Sequence

from runner.chat.tool_formats.calls import Sink
from runner.chat.tool_formats.format import Grammar, ToolFormat, json_calls, listed
from runner.chat.tool_formats.json_text import Reading, read_call
from runner.chat.tool_formats.regions import collect_all
from runner.chat.tool_formats.source import Source, Steps, peek, skip_blanks, take, until
from runner.chat.tool_formats.terms import Terms
from runner.chat.types import Tool

_PYTHON_TAG = "<|python_tag|>"


def _is_in(template: str) -> bool:
    return '{"name": ' in template.replace('\\"', '"') and "parameters" in template and "<|eot_id|>" in template


def _read(source: Source, sink: Sink) -> Steps[None]:
    start = source.position
    yield from skip_blanks(source)
    yield from take(source, _PYTHON_TAG)
    while True:
        yield from skip_blanks(source)
        if (yield from peek(source)) != "{":
            break
        outcome, more = yield from read_call(source, sink)
        if outcome is not Reading.WHOLE:
            rest, _ = yield from collect_all(source)
            if outcome is Reading.BROKEN:
                more(rest)
            else:
                sink.content(source.since(start))
            return
        yield from skip_blanks(source)
        yield from take(source, ";")
        start = source.position
    sink.content(source.since(start))
    yield from until(source, (), sink.content)


def _body(tools: Sequence[Tool], terms: Terms, is_parallel: bool) -> Grammar:
    return listed(terms, json_calls(tools, terms, arguments_key="parameters"), is_parallel, "", "; ", "")


LLAMA_JSON = ToolFormat("llama_json", _is_in, _read, _body, separator="", many_in_body=True, markers=(_PYTHON_TAG,))
