"""The values of texts, characters and numbers as they are written in Go."""

from __future__ import annotations

import re
from collections.abc import Iterator

from runner.chat.go_template.errors import Fault

_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|([0-7]{3})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL)
_SIMPLE = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "\\": 92, "'": 39, '"': 34}
_MAX_INT = 2**63 - 1


def text_value(written: str) -> str:
    """Of a text in quotation marks or backquotes. Raises Fault."""
    if written.startswith("`"):
        return written[1:-1].replace("\r", "")
    content = b"".join(_bytes_of(written[1:-1], '"'))
    return content.decode("utf-8", "surrogateescape")


def character_value(written: str) -> int:
    """The code of a character in single quotation marks. Raises Fault."""
    content = b"".join(_bytes_of(written[1:-1], "'"))
    if re.fullmatch(r"\\(x..|[0-7]{3})", written[1:-1]):
        return content[0]
    text = content.decode("utf-8", "surrogateescape")
    if len(text) != 1:
        raise Fault(f"malformed character constant: {written[:20]}")
    return ord(text)


def number_value(written: str) -> int | float:
    """Raises Fault for what is no number, or too large for one."""
    digits = written.lower()
    try:
        if "x" in digits:
            value: int | float = float.fromhex(_without_marks(digits)) if set(".p") & set(digits) else _integer(digits)
        elif set(".e") & set(digits):
            value = float(_without_marks(digits))
        else:
            value = _integer(digits)
    except (ValueError, OverflowError):
        raise Fault(f"illegal number syntax: {written[:40]!a}") from None
    if isinstance(value, int) and not -_MAX_INT - 1 <= value <= _MAX_INT:
        raise Fault(f"{written[:40]} overflows int")
    if value in (float("inf"), float("-inf")):
        raise Fault(f"illegal number syntax: {written[:40]!a}")
    return value


def _integer(digits: str) -> int:
    if len(digits) > 80:
        raise ValueError
    # A leading zero alone means octal, as in C.
    if re.fullmatch(r"[+-]?0[0-7_]+", digits):
        return int(digits.replace("_", ""), 8)
    return int(digits, 0)


def _without_marks(digits: str) -> str:
    if not re.fullmatch(r"(?:[0-9a-z.+-]|(?<=[0-9a-fx])_(?=[0-9a-f]))*", digits):
        raise ValueError
    return digits.replace("_", "")


def _bytes_of(text: str, quote: str) -> Iterator[bytes]:
    end = 0
    for match in _ESCAPE.finditer(text):
        yield _encoded(text[end : match.start()])
        end = match.end()
        by_hex, by_octal, short, long, simple = match.groups()
        if simple is not None:
            if simple not in _SIMPLE or (simple in "\"'" and simple != quote):
                raise Fault(f"invalid syntax: \\{simple} in a text")
            yield bytes([_SIMPLE[simple]])
        elif short or long:
            code = int(short or long, 16)
            if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
                raise Fault("invalid syntax: no character has that code")
            yield chr(code).encode()
        else:
            byte = int(by_hex, 16) if by_hex else int(by_octal, 8)
            if byte > 255:
                raise Fault("invalid syntax: no byte is that large")
            yield bytes([byte])
    yield _encoded(text[end:])


def _encoded(text: str) -> bytes:
    if "\\" in text:
        raise Fault("invalid syntax: an escape without an end in a text")
    return text.encode("utf-8", "surrogateescape")
