"""The functions that templates call, those of Go and those of Ollama."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from urllib.parse import quote

from runner.chat.budget import Budget
from runner.chat.go_template.comparing import equal, less
from runner.chat.go_template.errors import Fault
from runner.chat.go_template.formatting import show, sprint, sprintf, sprintln
from runner.chat.go_template.go_json import to_json
from runner.chat.go_template.values import GoMap, Record, Value, field_of, is_true, type_name

Args = Sequence[Value]


@dataclass(frozen=True, slots=True)
class Function:
    """What is called, and how many values it takes."""

    call: Callable[[Args, Budget], Value]
    fewest: int = 0
    most: int | None = None


def call_function(name: str, args: Args, budget: Budget) -> Value:
    """Raises Fault when a function does not take these values, OverBudget."""
    function = FUNCTIONS[name]
    if len(args) < function.fewest or (function.most is not None and len(args) > function.most):
        wanted = str(function.fewest) if function.most == function.fewest else f"at least {function.fewest}"
        raise Fault(f"wrong number of args for {name}: want {wanted} got {len(args)}")
    try:
        return function.call(args, budget)
    except Fault as fault:
        raise Fault(f"error calling {name}: {fault}") from None


def _index(args: Args, _: Budget) -> Value:
    item = args[0]
    if item is None:
        raise Fault("index of untyped nil")
    for key in args[1:]:
        if isinstance(item, dict):
            if not isinstance(key, str):
                raise Fault(f"value has type {type_name(key)}; should be string")
            item = item.get(key, item.zero if isinstance(item, GoMap) else None)
        elif isinstance(item, list | str):
            sequence = _bytes(item) if isinstance(item, str) else item
            item = sequence[_position(key, len(sequence) - 1)]
        elif item is None:
            raise Fault("index of nil pointer")
        else:
            raise Fault(f"can't index item of type {type_name(item)}")
    return item


def _slice(args: Args, budget: Budget) -> Value:
    item, indexes = args[0], args[1:]
    if item is None:
        raise Fault("slice of untyped nil")
    if not isinstance(item, list | str):
        raise Fault(f"can't slice item of type {type_name(item)}")
    if len(indexes) > 3 or (isinstance(item, str) and len(indexes) > 2):
        raise Fault(f"too many slice indexes: {len(indexes)}")
    sequence = _bytes(item) if isinstance(item, str) else item
    bounds = [_position(index, len(sequence)) for index in indexes]
    if bounds != sorted(bounds):
        raise Fault(f"invalid slice index: {bounds[0]} > {bounds[1]}")
    begin = bounds[0] if bounds else 0
    end = bounds[1] if len(bounds) > 1 else len(sequence)
    cut = sequence[begin:end]
    if isinstance(cut, list):
        return cut
    budget.spend(len(cut))
    return cut.decode("utf-8", "surrogateescape")


def _position(index: Value, last: int) -> int:
    if index is None:
        raise Fault("cannot index slice/array with nil")
    if isinstance(index, bool) or not isinstance(index, int):
        raise Fault(f"cannot index slice/array with type {type_name(index)}")
    if not 0 <= index <= last:
        raise Fault(f"index out of range: {index}")
    return index


def _len(args: Args, _: Budget) -> int:
    item = args[0]
    if isinstance(item, str):
        return len(_bytes(item))
    if isinstance(item, list | dict):
        return len(item)
    raise Fault("len of nil pointer" if item is None else f"len of type {type_name(item)}")


def _bytes(text: str) -> bytes:
    """Go counts a text's bytes, not its characters."""
    return text.encode("utf-8", "surrogateescape")


def _eq(args: Args, _: Budget) -> bool:
    return any(equal(args[0], other) for other in args[1:])


def _printf(args: Args, budget: Budget) -> str:
    template = _text(args[0])
    return sprintf(template, args[1:], budget.spend)


def _text(value: Value) -> str:
    if not isinstance(value, str):
        raise Fault(f"wrong type for value; expected string; got {type_name(value)}")
    return value


def _json(args: Args, budget: Budget) -> str:
    try:
        text = to_json(args[0])
    except Fault:
        return ""  # as Ollama answers for what has no JSON
    budget.spend(len(text))
    return text


def _escaped(escapes: Mapping[int, str]) -> Callable[[Args, Budget], str]:
    def escape(args: Args, budget: Budget) -> str:
        text = _joined(args, budget).translate(escapes)
        budget.spend(len(text))
        return text

    return escape


def _joined(args: Args, budget: Budget) -> str:
    if len(args) == 1 and isinstance(args[0], str):
        return args[0]
    return sprint([show(arg) if arg is None or isinstance(arg, Record) else arg for arg in args], budget.spend)


def _urlquery(args: Args, budget: Budget) -> str:
    text = _joined(args, budget)
    budget.spend(3 * len(text))
    return quote(_bytes(text), safe=" ").replace(" ", "+")


def _js(args: Args, budget: Budget) -> str:
    text = _joined(args, budget)
    budget.spend(6 * len(text))
    return "".join(map(_js_character, text))


def _js_character(character: str) -> str:
    if character in "\\'\"":
        return f"\\{character}"
    if character in "<>&=" or not character.isprintable():
        return f"\\u{ord(character):04X}"
    return character


def _today(days: int) -> Callable[[Args, Budget], str]:
    def today(args: Args, _: Budget) -> str:
        for arg in args:
            _text(arg)
        return (date.today() - timedelta(days=days)).isoformat()

    return today


def _typescript(args: Args, _: Budget) -> str:
    value = args[0]
    try:
        return str(field_of(value, "ToTypeScriptType")) if isinstance(value, Record) else "any"
    except Fault:
        return "any"


_HTML = {34: "&#34;", 39: "&#39;", 38: "&amp;", 60: "&lt;", 62: "&gt;", 0: "\ufffd"}

FUNCTIONS: Mapping[str, Function] = {
    # `and` and `or` stop at the first value that decides; whoever executes sees to it.
    "and": Function(lambda args, _: next((one for one in args if not is_true(one)), args[-1]), 1),
    "or": Function(lambda args, _: next((one for one in args if is_true(one)), args[-1]), 1),
    "not": Function(lambda args, _: not is_true(args[0]), 1, 1),
    "eq": Function(_eq, 2),
    "ne": Function(lambda args, _: not equal(args[0], args[1]), 2, 2),
    "lt": Function(lambda args, _: less(args[0], args[1]), 2, 2),
    "le": Function(lambda args, _: less(args[0], args[1]) or equal(args[0], args[1]), 2, 2),
    "gt": Function(lambda args, _: not (less(args[0], args[1]) or equal(args[0], args[1])), 2, 2),
    "ge": Function(lambda args, _: not less(args[0], args[1]), 2, 2),
    "len": Function(_len, 1, 1),
    "index": Function(_index, 1),
    "slice": Function(_slice, 1),
    "print": Function(lambda args, budget: sprint(args, budget.spend)),
    "printf": Function(_printf, 1),
    "println": Function(lambda args, budget: sprintln(args, budget.spend)),
    "html": Function(_escaped(_HTML)),
    "js": Function(_js),
    "urlquery": Function(_urlquery),
    "json": Function(_json, 1, 1),
    "currentDate": Function(_today(0)),
    "yesterdayDate": Function(_today(1)),
    "toTypeScriptType": Function(_typescript, 1, 1),
}
