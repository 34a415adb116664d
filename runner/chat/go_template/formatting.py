"""How Go shows values: what `print` and `printf` make of them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

from runner.chat.go_template.errors import Fault
from runner.chat.go_template.go_json import MAX_DEPTH, plain_digits, to_json
from runner.chat.go_template.values import GoList, GoMap, Record, TypeNames, sorted_items, type_name

MAX_WIDTH = 1_000_000

Spend = Callable[[int], None]

_DIRECTIVE = re.compile(r"%([+\-# 0]*)(\*|[0-9]+)?(?:\.(\*|[0-9]+)?)?(.)?", re.DOTALL)
_PRECISION = re.compile(r"%[+\-# 0]*(?:\*|[0-9]+)?\.")


def show(value: Any) -> str:
    """What `{{ value }}` writes."""
    return "<no value>" if value is None else _plain(value, 0)


def sprint(values: Sequence[Any], spend: Spend) -> str:
    """`print`: blanks stand between values of which neither is a text. Tells `spend` what it makes while it does."""
    parts: list[str] = []
    for index, value in enumerate(values):
        if index and not isinstance(value, str) and not isinstance(values[index - 1], str):
            parts.append(" ")
        parts.append(_plain(value, 0))
        spend(len(parts[-1]))
    return "".join(parts)


def sprintln(values: Sequence[Any], spend: Spend) -> str:
    """`println`: blanks between all values."""
    parts = []
    for value in values:
        parts.append(_plain(value, 0))
        spend(len(parts[-1]))
    return " ".join(parts) + "\n"


def sprintf(template: str, values: Sequence[Any], spend: Spend) -> str:
    """`printf`. What does not fit together is told inside the text, as Go does it."""
    return _Printer(template, values, spend).text()


def shows_itself(value: Any) -> bool:
    """Whether a value has a way of its own to show itself, as it has with Go's method `String`."""
    if isinstance(value, Record):
        return value.type.is_shown_as_json
    return isinstance(value, GoMap | TypeNames) or (isinstance(value, GoList) and value.is_shown_as_json)


def _plain(value: Any, depth: int) -> str:
    """`%v`."""
    if depth > MAX_DEPTH:
        raise Fault(f"values are nested more than {MAX_DEPTH} deep")
    match value:
        case None:
            return "<nil>"
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return _float(value)
        case str():
            return value
        case GoMap():
            return "{}" if value.is_nil else to_json(value)
        case Record() if value.type.is_shown_as_json:
            return to_json(value)
        case Record():
            return f"{{{' '.join(_plain(one, depth + 1) for one in value.values)}}}"
        case GoList() if value.is_shown_as_json:
            return to_json(value)
        case TypeNames() if len(value) < 2:
            return "".join(value)
        case list():
            return f"[{' '.join(_plain(one, depth + 1) for one in value)}]"
        case dict():
            shown = (f"{_plain(key, depth)}:{_plain(one, depth + 1)}" for key, one in sorted_items(value))
            return f"map[{' '.join(shown)}]"
        case _:
            raise Fault(f"a {type(value).__name__} cannot be shown")


def _float(value: float) -> str:
    """`%g` with the fewest digits that mean this number."""
    if not math.isfinite(value):
        return _infinite(value)
    # The shortest text that reads back tells the exponent; `:e` could round it up.
    exponent = Decimal(repr(value)).adjusted() if value else 0
    if -4 <= exponent < 6:
        return plain_digits(value)
    sign = "-" if value < 0 else ""
    digits = plain_digits(abs(value)).replace(".", "").strip("0")
    mantissa = f"{digits[0]}.{digits[1:]}" if len(digits) > 1 else digits
    return f"{sign}{mantissa}e{'-' if exponent < 0 else '+'}{abs(exponent):02}"


def _infinite(value: float) -> str:
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"


def _quoted(text: str, *, is_ascii: bool = False) -> str:
    """`%q`: as it would be written in Go."""
    written = []
    for character in text:
        code = ord(character)
        short = {7: "\\a", 8: "\\b", 9: "\\t", 10: "\\n", 11: "\\v", 12: "\\f", 13: "\\r", 34: '\\"', 92: "\\\\"}
        if code in short:
            written.append(short[code])
        elif character.isprintable() and (code < 0x80 or not is_ascii):
            written.append(character)
        elif 0xDC80 <= code <= 0xDCFF:
            written.append(f"\\x{code - 0xDC00:02x}")
        elif code < 0x80:
            written.append(f"\\x{code:02x}")
        else:
            written.append(f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")
    return f'"{"".join(written)}"'


class _Printer:
    """Fills in one format."""

    def __init__(self, template: str, values: Sequence[Any], spend: Spend) -> None:
        self._template = template
        self._values = values
        self._spend = spend
        self._used = 0

    def text(self) -> str:
        self._spend(len(self._template))
        whole = _DIRECTIVE.sub(self._directive, self._template)
        if self._used < len(self._values):
            rest = ", ".join(
                "<nil>" if value is None else f"{type_name(value)}={_plain(value, 0)}"
                for value in self._values[self._used :]
            )
            whole += f"%!(EXTRA {rest})"
        return whole

    def _directive(self, match: re.Match[str]) -> str:
        flags, width_text, precision_text, verb = match.groups()
        complaints = ""
        width, bad = self._number(width_text)
        if bad:
            complaints += "%!(BADWIDTH)"
        if width is not None and width < 0:
            flags, width = flags + "-", -width
        precision, bad = self._number(precision_text)
        if bad or (precision is not None and precision < 0):
            complaints += "%!(BADPREC)"
            precision = None
        elif precision is None and _PRECISION.match(match.group()):
            precision = 0
        if verb is None:
            return f"{complaints}%!(NOVERB)"
        if verb == "%":
            return f"{complaints}%"
        if self._used >= len(self._values):
            return f"{complaints}%!{verb}(MISSING)"
        value = self._values[self._used]
        self._used += 1
        text = _formatted(verb, value, flags, width, precision)
        self._spend(len(text))
        return complaints + text

    def _number(self, text: str | None) -> tuple[int | None, bool]:
        """A width or precision, and whether it is none."""
        if text is None:
            return None, False
        if text != "*":
            number = int(text) if len(text) < 10 else MAX_WIDTH + 1
        else:
            value = self._values[self._used] if self._used < len(self._values) else None
            self._used += self._used < len(self._values)
            if not isinstance(value, int) or isinstance(value, bool):
                return None, True
            number = value
        return (number, False) if abs(number) <= MAX_WIDTH else (None, True)


def _formatted(verb: str, value: Any, flags: str, width: int | None, precision: int | None) -> str:
    if verb == "T":
        return _padded(type_name(value), "", verb, flags, width)
    if isinstance(value, list | dict | Record) and not (verb in "vsqxX" and shows_itself(value)):
        return _each(value, lambda one: _formatted(verb, one, flags, width, precision))
    text = _converted(verb, value, flags, precision)
    if text is None:
        shown = "<nil>" if value is None else f"{type_name(value)}={_plain(value, 0)}"
        return f"%!{verb}({shown})"
    return _padded(text, value, verb, flags, width)


def _padded(text: str, value: Any, verb: str, flags: str, width: int | None) -> str:
    if width is None or len(text) >= width:
        return text
    if "-" in flags:
        return text.ljust(width)
    if "0" in flags and not (isinstance(value, float) and not math.isfinite(value)) and verb != "T":
        signed = not isinstance(value, str) and text[:1] in ("+", "-", " ")
        return text[:signed] + text[signed:].rjust(width - signed, "0")
    return text.rjust(width)


def _each(value: Any, form: Callable[[Any], str]) -> str:
    """What is made of values goes around each of what they hold."""

    def inner(one: Any) -> str:
        return "<nil>" if one is None else form(one)

    if isinstance(value, dict):
        return f"map[{' '.join(f'{form(key)}:{inner(one)}' for key, one in sorted_items(value))}]"
    if isinstance(value, Record):
        return f"{{{' '.join(map(inner, value.values))}}}"
    return f"[{' '.join(map(inner, value))}]"


def _converted(verb: str, value: Any, flags: str, precision: int | None) -> str | None:
    """The text without its padding; None when the verb does not fit the value."""
    match value:
        case bool():
            return ("true" if value else "false") if verb in "tv" else None
        case int():
            return _integer(verb, value, flags, precision)
        case float():
            return _real(verb, value, flags, precision)
        case None:
            return "<nil>" if verb == "v" else None
    text = value if isinstance(value, str) else _plain(value, 0)
    if verb in "vs":
        return text if precision is None else text[:precision]
    if verb == "q":
        cut = text if precision is None else text[:precision]
        if "#" in flags and "`" not in cut and cut.isprintable():
            return f"`{cut}`"
        return _quoted(cut, is_ascii="+" in flags)
    if verb in "xX":
        content = text.encode("utf-8", "surrogateescape")[:precision]
        digits = content.hex(" ") if " " in flags else content.hex()
        return digits.upper() if verb == "X" else digits
    return None


def _integer(verb: str, value: int, flags: str, precision: int | None) -> str | None:
    sign = "-" if value < 0 else "+" if "+" in flags else " " if " " in flags else ""
    bases = {"d": "d", "v": "d", "b": "b", "o": "o", "O": "o", "x": "x", "X": "X"}
    if verb in bases:
        prefix = {"b": "0b", "o": "0", "x": "0x", "X": "0X"}.get(verb, "") if "#" in flags else ""
        digits = f"{abs(value):{bases[verb]}}".rjust(precision or 0, "0")
        return f"{sign}{'0o' if verb == 'O' else prefix}{digits}"
    character = chr(value) if 0 <= value < 0x110000 and not 0xD800 <= value < 0xE000 else "\ufffd"
    match verb:
        case "c":
            return character
        case "q":
            return "'" + _quoted(character)[1:-1].replace('\\"', '"').replace("'", "\\'") + "'"
        case "U":
            return f"U+{value:04X}" + (f" '{character}'" if "#" in flags and character.isprintable() else "")
    return None


def _real(verb: str, value: float, flags: str, precision: int | None) -> str | None:
    if verb not in "vgGeEfF":
        return None
    if not math.isfinite(value):
        text = _infinite(value)
        return text if "+" in flags else text.replace("+", " " if " " in flags else "+")
    if verb in "vgG" and precision is None:
        text = _float(value)
    elif verb in "vgG":
        text = f"{value:.{precision}g}"
    elif verb in "eE":
        text = f"{value:.{6 if precision is None else precision}e}"
    else:
        text = f"{value:.{6 if precision is None else precision}f}"
    sign = "" if text.startswith("-") else "+" if "+" in flags else " " if " " in flags else ""
    return sign + (text.upper() if verb in "GE" else text)
