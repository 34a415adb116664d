"""Lark grammars without recursion, as regular expressions: these can be quoted inside a call, grammars cannot."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

LONGEST = 40_000
"""Characters of the expression; a grammar can say much with few words."""
LONGEST_SOURCE = 128 * 1024
_TOKEN = re.compile(
    r"""(?P<blank>[ \t\f\r]+|(?://|\#)[^\n]*)
    |(?P<newline>(?:\n[ \t]*)+)
    |(?P<text>"(?:\\.|[^"\\\n])*"i?)
    |/(?P<regex>(?![/*])(?:\\.|[^/\\\n])+)/(?P<flags>[imsux]*)
    |(?P<range>\.\.)|(?P<arrow>->)
    |(?P<directive>%[a-z]+)
    |(?P<name>[!?]{0,2}_?[A-Za-z][A-Za-z0-9_]*)
    |(?P<counted>~\s*\d+(?:\s*\.\.\s*\d+)?)
    |(?P<number>\d+)
    |(?P<sign>[()\[\]|:?*+.,])""",
    re.VERBOSE,
)
_SLASH = "\\/"
_SEQUENCE_ENDS = frozenset({("sign", "|"), ("sign", ")"), ("sign", "]")})
_COMMON: Mapping[str, str] = {
    "DIGIT": "[0-9]",
    "HEXDIGIT": "[0-9a-fA-F]",
    "INT": "[0-9]+",
    "SIGNED_INT": "[+-]?[0-9]+",
    "DECIMAL": r"(?:[0-9]+\.[0-9]*|\.[0-9]+)",
    "FLOAT": r"(?:[0-9]+[eE][+-]?[0-9]+|(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)",
    "NUMBER": r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?",
    "SIGNED_NUMBER": r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?",
    "LCASE_LETTER": "[a-z]",
    "UCASE_LETTER": "[A-Z]",
    "LETTER": "[a-zA-Z]",
    "WORD": "[a-zA-Z]+",
    "CNAME": "[_a-zA-Z][_a-zA-Z0-9]*",
    "WS_INLINE": r"[ \t]+",
    "WS": r"[ \t\f\r\n]+",
    "CR": r"\r",
    "LF": r"\n",
    "NEWLINE": r"(?:\r?\n)+",
    "ESCAPED_STRING": r'"(?:\\.|[^"\\\n])*"',
}


class LarkError(Exception):
    """Says what of a grammar cannot be honoured, without a full stop."""


def lark_regex(source: str) -> str:
    """An expression for the texts that a grammar's `start` stands for. Raises LarkError."""
    if len(source) > LONGEST_SOURCE:
        raise LarkError(f"it has more than {LONGEST_SOURCE} characters")
    grammar = _Grammar()
    for statement in _statements(source):
        _Statement(statement, grammar).read()
    if "start" not in grammar.rules:
        raise LarkError("it has no rule named start")
    ignored = "|".join(grammar.expression(name) for name in grammar.ignored)
    grammar.between = f"(?:{ignored})*" if ignored else ""
    return grammar.between + grammar.expression("start")


@dataclass(slots=True)
class _Grammar:
    rules: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    between: str = ""
    """What may stand behind every terminal of a rule."""
    _made: dict[str, str] = field(default_factory=dict)
    _open: list[str] = field(default_factory=list)

    def expression(self, name: str) -> str:
        """The expression of a rule or terminal."""
        if name in self._open:
            raise LarkError(f"the rule {name} refers to itself, and a text inside a call can have no such rules")
        if name not in self.rules:
            raise LarkError(f"{name} is not defined")
        if name not in self._made:
            self._open.append(name)
            between = "" if _is_terminal(name) else self.between
            self._made[name] = _Expression(self.rules[name], self, between).read()
            self._open.pop()
        made = self._made[name]
        if len(made) > LONGEST:
            raise LarkError(f"written out it has more than {LONGEST} characters")
        return made


def _is_terminal(name: str) -> bool:
    return name.lstrip("_")[:1].isupper()


def _statements(source: str) -> Iterator[list[tuple[str, str]]]:
    """The tokens of each definition; one goes on over lines that begin with a bar, and inside brackets."""
    statement: list[tuple[str, str]] = []
    depth = 0
    tokens = list(_tokens(source))
    for index, (kind, text) in enumerate(tokens):
        if kind == "newline":
            goes_on = index + 1 < len(tokens) and tokens[index + 1] == ("sign", "|")
            if statement and depth == 0 and not goes_on and statement[-1] not in (("sign", "|"), ("sign", ":")):
                yield statement
                statement = []
            continue
        depth += (text in ("(", "[")) - (text in (")", "]")) if kind == "sign" else 0
        statement.append((kind, text))
    if statement:
        yield statement


def _tokens(source: str) -> Iterator[tuple[str, str]]:
    position = 0
    while position < len(source):
        found = _TOKEN.match(source, position)
        if found is None:
            line = source.count("\n", 0, position) + 1
            raise LarkError(f"line {line}: {source[position : position + 10]!a} is not understood")
        position = found.end()
        kind = str(found.lastgroup)
        if kind == "flags":
            yield "regex", f"(?{found['flags']}:{found['regex'].replace(_SLASH, '/')})"
        elif kind != "blank":
            yield kind, found.group()


class _Statement:
    """One definition or directive."""

    def __init__(self, tokens: list[tuple[str, str]], grammar: _Grammar) -> None:
        self._tokens = tokens
        self._grammar = grammar

    def read(self) -> None:
        kind, text = self._tokens[0]
        if kind == "directive":
            self._directive(text, self._tokens[1:])
            return
        colon = next((place for place, token in enumerate(self._tokens) if token == ("sign", ":")), None)
        # Between a name and its colon there may be a priority.
        is_named = colon is not None and [one for one, _ in self._tokens[1:colon]] in ([], ["sign", "number"])
        if kind != "name" or colon is None or not is_named:
            raise LarkError(f"{text[:50]!a} begins no rule")
        self._grammar.rules[text.lstrip("!?")] = self._tokens[colon + 1 :]

    def _directive(self, word: str, rest: list[tuple[str, str]]) -> None:
        if word == "%ignore":
            name = f"_ignored_{len(self._grammar.ignored)}".upper()
            self._grammar.rules[name] = rest
            self._grammar.ignored.append(name)
        elif word == "%import":
            self._import([text for _, text in rest if text not in (".", ",", "(", ")")])
        else:
            raise LarkError(f"{word} is not supported inside a call")

    def _import(self, words: list[str]) -> None:
        renamed = words.index("->") if "->" in words else None
        names = words[1:renamed]
        unknown = [name for name in names if name not in _COMMON]
        if not names or words[0] != "common" or unknown:
            raise LarkError(f"only the terminals of common can be imported, not {'.'.join(words)[:60]!a}")
        for name in names:
            self._grammar.rules[words[-1] if renamed else name] = [("regex", f"(?:{_COMMON[name]})")]


class _Expression:
    """The right side of one rule."""

    def __init__(self, tokens: list[tuple[str, str]], grammar: _Grammar, between: str) -> None:
        self._tokens = tokens
        self._at = 0
        self._grammar = grammar
        self._between = between

    def read(self) -> str:
        made = self._alternatives()
        if self._at < len(self._tokens):
            raise LarkError(f"{self._tokens[self._at][1][:50]!a} is in the wrong place")
        return made

    def _alternatives(self) -> str:
        parts = [self._sequence()]
        while self._take("sign", "|"):
            parts.append(self._sequence())
        return f"(?:{'|'.join(parts)})"

    def _sequence(self) -> str:
        made: list[str] = []
        length = 0
        while self._at < len(self._tokens) and self._tokens[self._at] not in _SEQUENCE_ENDS:
            if self._take("arrow"):
                self._at += 1
                continue
            made.append(self._counted(self._item()))
            length += len(made[-1])
            if length > LONGEST:
                raise LarkError(f"written out it has more than {LONGEST} characters")
        return "".join(made)

    def _item(self) -> str:
        kind, text = self._tokens[self._at]
        self._at += 1
        if kind == "text":
            return self._text(text)
        if kind == "regex":
            return f"(?:{text}{self._between})" if self._between else text
        if kind == "name":
            made = self._grammar.expression(text)
            return f"(?:{made}{self._between})" if _is_terminal(text) and self._between else made
        if (kind, text) in (("sign", "("), ("sign", "[")):
            made = self._alternatives()
            if not self._take("sign", {"(": ")", "[": "]"}[text]):
                raise LarkError(f"a {text} is not closed")
            return made if text == "(" else f"{made}?"
        raise LarkError(f"{text[:50]!a} is in the wrong place")

    def _text(self, text: str) -> str:
        if self._take("range"):
            first, last = _unquoted(text), _unquoted(self._tokens[self._at][1])
            self._at += 1
            if len(first) != 1 or len(last) != 1 or first > last:
                raise LarkError(f"{text[:50]} begins no range")
            made = f"[{_escaped(first)}-{_escaped(last)}]"
        else:
            made = _escaped(_unquoted(text.removesuffix("i")))
            made = f"(?i:{made})" if text.endswith("i") else f"(?:{made})"
        return f"(?:{made}{self._between})" if self._between else made

    def _counted(self, item: str) -> str:
        if self._at == len(self._tokens):
            return item
        kind, text = self._tokens[self._at]
        if kind == "sign" and text in "?*+":
            self._at += 1
            return f"(?:{item}){text}"
        if kind == "counted":
            self._at += 1
            least, _, most = text[1:].replace(" ", "").partition("..")
            return f"(?:{item}){{{least},{most}}}" if most else f"(?:{item}){{{least}}}"
        return item

    def _take(self, kind: str, text: str | None = None) -> bool:
        is_there = self._at < len(self._tokens) and self._tokens[self._at][0] == kind
        is_there = is_there and text in (None, self._tokens[self._at][1])
        self._at += is_there
        return is_there


def _escaped(text: str) -> str:
    """As it is written in expressions of every kind; Python's own way has escapes that others do not know."""
    made = re.sub(r"[\\.+*?()|\[\]{}^$&~-]", r"\\\g<0>", text)
    return made.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")


def _unquoted(text: str) -> str:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, str):
        raise LarkError(f"{text[:50]} is no text")
    return value
