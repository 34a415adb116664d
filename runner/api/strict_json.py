"""Reads a request body as strict JSON: one reading of every body, or an error that says where it is wrong."""

from __future__ import annotations

import json
import re
from itertools import accumulate
from typing import NoReturn

from runner.errors import InvalidEncoding, InvalidJson, RequestError, TooDeep

MAX_DEPTH = 64

_CHUNK = 64 * 1024
_BOM = b"\xef\xbb\xbf"
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_LEVEL_CHANGE = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")
_LARGEST = 2**64 - 1
_SMALLEST = -(2**63)
_LONGEST_INTEGER = len(str(_SMALLEST))


def decode(body: bytes) -> object:
    """The value a body stands for.

    Raises InvalidEncoding, InvalidJson or TooDeep. Takes time in proportion to the body and never
    recurses deeper than 64 levels, so that it may be called with anything.
    """
    if body.startswith(_BOM):
        raise InvalidEncoding("The body starts with a byte order mark; send UTF-8 without one.", offset=0)
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidEncoding(f"The body is not UTF-8: byte {error.start} is wrong.", offset=error.start) from None
    _check_depth(body)
    try:
        value: object = json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_float,
            parse_constant=_constant,
        )
    except json.JSONDecodeError as error:
        raise InvalidJson(
            f"The body is not JSON: {error.msg}, line {error.lineno}, column {error.colno}.",
            line=error.lineno,
            column=error.colno,
        ) from None
    except RecursionError:
        raise _too_deep() from None
    if _SURROGATE_ESCAPE.search(body):
        _refuse_lone_surrogates(value, "")
    return value


def _check_depth(body: bytes) -> None:
    """Raise TooDeep from the brackets alone, before anything recursive sees them.

    Without its escapes, a JSON text is cut by its quotes into outside, inside, outside, …
    """
    outside = body.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2]
    brackets = b"".join(outside).translate(_LEVEL_CHANGE, _NOT_BRACKETS)
    depth = 0
    for start in range(0, len(brackets), _CHUNK):
        changes = memoryview(brackets[start : start + _CHUNK]).cast("b")
        levels = list(accumulate(changes, initial=depth))
        if max(levels) > MAX_DEPTH:
            raise _too_deep()
        depth = levels[-1]


def _too_deep() -> RequestError:
    return TooDeep(f"The body is nested deeper than {MAX_DEPTH} levels.", max_depth=MAX_DEPTH)


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise InvalidJson(f"The key {_shown(key)} stands twice in one object.")
            seen.add(key)
    return value


def _integer(text: str) -> int:
    if len(text) <= _LONGEST_INTEGER:
        number = int(text)
        if _SMALLEST <= number <= _LARGEST:
            return number
    raise InvalidJson(f"The number {text[:24]}{'…' if len(text) > 24 else ''} does not fit into 64 bits.")


def _float(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise InvalidJson(f"The number {text[:24]}{'…' if len(text) > 24 else ''} is too large.")
    return number


def _constant(text: str) -> NoReturn:
    raise InvalidJson(f"{text} is not a JSON value.")


def _refuse_lone_surrogates(value: object, path: str) -> None:
    if isinstance(value, str):
        if not _is_encodable(value):
            raise InvalidEncoding(
                f"The text at {path or 'the top'} holds half of a surrogate pair, which is no character."
            )
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _refuse_lone_surrogates(item, f"{path}[{index}]")
    elif isinstance(value, dict):
        for key, item in value.items():
            if not _is_encodable(key):
                raise InvalidEncoding(f"A key in {path or 'the body'} holds half of a surrogate pair.")
            _refuse_lone_surrogates(item, f"{path}.{key}" if path else key)


def _is_encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _shown(key: str) -> str:
    text = key if len(key) <= 60 else f"{key[:60]}…"
    return json.dumps(text)
