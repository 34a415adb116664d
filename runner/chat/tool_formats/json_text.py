"""Reads JSON as models write it, passing on the text of values while it comes."""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass

from runner.chat.tool_formats.calls import Sink
from runner.chat.tool_formats.source import BLANKS, Emit, Source, Steps, peek, skip_blanks, take
from runner.chat.tool_formats.values import written

_CONTROL = {chr(code): json.dumps(chr(code))[1:-1] for code in range(0x20)}
_MAX_DEPTH = 200


@dataclass(frozen=True, slots=True)
class Keys:
    """What a format calls the parts of a call."""

    name: tuple[str, ...] = ("name",)
    arguments: tuple[str, ...] = ("arguments", "parameters")


CALL_KEYS = Keys()


class Reading(enum.Enum):
    """How reading a call went."""

    WHOLE = enum.auto()
    NOT_A_CALL = enum.auto()
    """Nothing was passed on."""
    BROKEN = enum.auto()
    """The call was begun; its arguments have no end."""


def read_call(source: Source, sink: Sink, keys: Keys = CALL_KEYS) -> Steps[tuple[Reading, Emit]]:
    """Read one call object, its arguments passed on as they come; also where more of them would go."""
    call: Emit | None = None
    held: list[str] = []
    """Arguments that came before the name."""
    has_arguments = False
    is_whole = False
    if (yield from take(source, "{")):
        while (key := (yield from _key(source))) is not None:
            if key in keys.name and call is None:
                name = yield from read_string(source)
                call = sink.start_call(name) if name is not None else None
                if call is None:
                    break
                call("".join(held))
            elif key in keys.arguments and not has_arguments:
                has_arguments = True
                if not (yield from _arguments(source, call or held.append)):
                    break
            elif not (yield from copy_value(source, _nowhere)):
                break
        else:
            is_whole = yield from take(source, "}")
    if call is None:
        return Reading.NOT_A_CALL, _nowhere
    if is_whole and not has_arguments:
        call("{}")
    return (Reading.WHOLE if is_whole else Reading.BROKEN), call


def copy_value(source: Source, emit: Emit) -> Steps[bool]:
    """Pass on the text of the next value; False when it is not one, or has no end.

    Brackets and strings are followed, the rest is taken as it is; control characters inside
    strings, which JSON forbids and models write, are escaped.
    """
    depth, in_string, is_empty = 0, False, True
    while True:
        text, at = source.text, source.position
        out: list[str] = []
        is_over = False
        while at < len(text) and not is_over:
            character = text[at]
            width = 1
            if in_string:
                if character == "\\":
                    if at + 1 == len(text) and not source.is_ended:
                        break
                    width = 2
                else:
                    in_string = character != '"'
                    is_over = depth == 0 and not in_string
            elif character in BLANKS or character in ",:]}":
                if depth == 0:
                    break
                depth -= character in "]}"
                is_over = depth == 0
            elif character == '"':
                in_string = True
            elif character in "{[":
                if depth == _MAX_DEPTH:
                    break
                depth += 1
            written = text[at : at + width]
            out.append(_CONTROL.get(written, written) if in_string else written)
            at += width
        is_cut = at < len(text) and not is_over and not (in_string and text[at] == "\\")
        source.position = at
        if out:
            is_empty = False
            emit("".join(out))
        if is_over:
            return True
        if is_cut:
            return depth == 0 and not is_empty
        if source.is_ended:
            return depth == 0 and not in_string and not is_empty
        yield


def read_string(source: Source) -> Steps[str | None]:
    """The next string, decoded; None when there is none."""
    if (yield from peek(source)) != '"':
        return None
    parts: list[str] = []
    if not (yield from copy_value(source, parts.append)):
        return None
    try:
        value = json.loads("".join(parts))
    except ValueError:
        return None
    return value if isinstance(value, str) else None


def _arguments(source: Source, emit: Emit) -> Steps[bool]:
    """The arguments of a call: an object as it is, an object inside a string unpacked, null as none."""
    first = yield from peek(source)
    if first == "{":
        return (yield from copy_value(source, emit))
    parts: list[str] = []
    if not (yield from copy_value(source, parts.append)):
        return False
    text = "".join(parts)
    emit(_unpacked(text) or text)
    return True


def _unpacked(text: str) -> str | None:
    try:
        value = json.loads(text)
        inner = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return None
    return written(inner or {}) if inner is None or isinstance(inner, dict) else None


def _key(source: Source) -> Steps[str | None]:
    """The next key of an object, read up to its value; None where there is none."""
    yield from skip_blanks(source)
    if (yield from take(source, ",")):
        yield from skip_blanks(source)
    key = yield from read_string(source)
    if key is None:
        return None
    yield from skip_blanks(source)
    if not (yield from take(source, ":")):
        return None
    yield from skip_blanks(source)
    return key


def _nowhere(text: str) -> None:
    return None
