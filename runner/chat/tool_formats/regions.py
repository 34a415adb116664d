"""Calls between an opening and a closing marker: one JSON object, or a list of them."""

from __future__ import annotations

from runner.chat.tool_formats.calls import Sink
from runner.chat.tool_formats.json_text import CALL_KEYS, Keys, Reading, read_call
from runner.chat.tool_formats.source import Source, Steps, collect, peek, skip_blanks, take


def tagged_call(source: Source, sink: Sink, start: int, closing: str, keys: Keys = CALL_KEYS) -> Steps[None]:
    """Read the call whose opening marker began at `start` up to and with `closing`."""
    yield from skip_blanks(source)
    outcome, more = yield from read_call(source, sink, keys)
    if outcome is Reading.WHOLE:
        yield from skip_blanks(source)
        yield from take(source, closing)
        return
    rest, _ = yield from collect(source, (closing,))
    if outcome is Reading.NOT_A_CALL:
        sink.content(source.since(start))
    else:
        more(rest)


def call_list(source: Source, sink: Sink, start: int, closing: str, keys: Keys = CALL_KEYS) -> Steps[bool]:
    """Read a list of calls, or one call without brackets; False when there was none and all became content."""
    yield from skip_blanks(source)
    is_list = yield from take(source, "[")
    any_call = False
    while True:
        yield from skip_blanks(source)
        if is_list and (yield from take(source, "]")):
            break
        if (yield from take(source, ",")):
            continue
        element = source.position if any_call else start
        if any_call and (yield from peek(source)) != "{":
            break
        outcome, more = yield from read_call(source, sink, keys)
        if outcome is not Reading.WHOLE:
            rest, _ = yield from collect(source, (closing,)) if closing else collect_all(source)
            if outcome is Reading.BROKEN:
                more(rest)
            else:
                sink.content(source.since(element))
            return any_call or outcome is Reading.BROKEN
        any_call = True
        if not is_list:
            break
    if closing:
        yield from skip_blanks(source)
        yield from take(source, closing)
    return any_call


def collect_all(source: Source) -> Steps[tuple[str, str | None]]:
    """All the text that is left."""
    start = source.position
    while not source.is_ended:
        yield
    source.position = len(source.text)
    return source.text[start:], None
