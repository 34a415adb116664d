"""GBNF, the grammar notation of llama.cpp, to the Lark that the constraint compiler reads.

Lark splits text greedily into lexemes; GBNF knows only characters. So every character becomes a
lexeme of its own: the language stays the same, whatever the rules look like.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

MAX_DEPTH = 64

_TOKENS = re.compile(
    r"""
    (?P<space>(?:[ \t\r\n]|\#[^\n]*)+)
  | (?P<rule>[A-Za-z0-9_-]+)(?=[ \t]*::=)
  | (?P<name>[A-Za-z0-9_-]+)
  | (?P<define>::=)
  | (?P<text>"(?:\\.|[^"\\\n])*")
  | (?P<class>\[(?:\\.|[^\]\\\n])*\])
  | \{[ \t]*(?P<low>\d+)[ \t]*(?P<comma>,?)[ \t]*(?P<high>\d*)[ \t]*\}
  | (?P<sign>[()|*+?.])
    """,
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL)
_CONTROL = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "[": "[", "]": "]"}


class GbnfError(Exception):
    """Says in a sentence, with its line, what is wrong."""


def to_lark(source: str) -> str:
    """The same language as a Lark grammar. Raises GbnfError."""
    reader = _Reader(source)
    rules: dict[str, str] = {}
    while reader.kind != "end":
        name = reader.take("rule", "a rule (name ::= …)")
        if name in rules:
            raise reader.error(f"the rule {name} is defined twice")
        reader.take("define", "::=")
        rules[name] = _alternatives(reader, 0)
    if "root" not in rules:
        raise GbnfError("there is no rule named root")
    for name in reader.referenced:
        if name not in rules:
            raise GbnfError(f"the rule {name} is used and not defined")
    numbers = {name: f"r{number}" for number, name in enumerate(rules)}
    lines = [f"start: {numbers['root']}"]
    lines += [f"{numbers[name]}: {_numbered(body, numbers)}" for name, body in rules.items()]
    return "%llguidance {}\n" + "\n".join(lines) + "\n"


class _Reader:
    """The notation's words, one at a time."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._words = self._split()
        self.referenced: set[str] = set()
        self.advance()

    def advance(self) -> None:
        self._match = next(self._words)
        self.kind = (self._match and self._match.lastgroup) or "end"
        if self._match is not None and self._match["low"] is not None:
            self.kind = "count"
        self.text = self._match[0] if self._match else ""

    def take(self, kind: str, what: str) -> str:
        if self.kind != kind:
            raise self.error(f"{what} is expected here")
        text = self.text
        self.advance()
        return text

    def count(self) -> str:
        """A counted repeat in Lark's notation."""
        assert self._match is not None
        low, comma, high = self._match.group("low", "comma", "high")
        return f"{{{low},{high}}}" if comma else f"{{{low}}}"

    def error(self, message: str) -> GbnfError:
        position = self._match.start() if self._match else len(self._source)
        return GbnfError(f"line {self._source.count(chr(10), 0, position) + 1}: {message}")

    def _split(self) -> Iterator[re.Match[str] | None]:
        position = 0
        while position < len(self._source):
            match = _TOKENS.match(self._source, position)
            if match is None:
                line = self._source.count("\n", 0, position) + 1
                raise GbnfError(f"line {line}: {self._source[position : position + 20]!r} is not understood")
            position = match.end()
            if match.lastgroup != "space":
                yield match
        while True:
            yield None


def _alternatives(reader: _Reader, depth: int) -> str:
    if depth > MAX_DEPTH:
        raise reader.error(f"parentheses are nested deeper than {MAX_DEPTH}")
    branches = [_sequence(reader, depth)]
    while reader.text == "|":
        reader.advance()
        branches.append(_sequence(reader, depth))
    return " | ".join(branches)


def _sequence(reader: _Reader, depth: int) -> str:
    items = []
    while (item := _item(reader, depth)) is not None:
        while reader.kind == "count" or reader.text in ("*", "+", "?"):
            item = f"({item}){reader.count() if reader.kind == 'count' else reader.text}"
            reader.advance()
        items.append(item)
    return " ".join(items) or '""'


def _item(reader: _Reader, depth: int) -> str | None:
    kind, text = reader.kind, reader.text
    if text == "(" and kind == "sign":
        reader.advance()
        inner = _alternatives(reader, depth + 1)
        if reader.text != ")":
            raise reader.error("a ) is missing")
        reader.advance()
        return f"({inner})"
    if kind == "name":
        reader.referenced.add(text)
        # Names are numbered once all rules are known; no other word begins with a dollar sign.
        item = f"${text}$"
    elif kind == "text":
        item = " ".join(f"/{_escaped(character)}/" for character in _characters(reader, text[1:-1])) or '""'
    elif kind == "class":
        item = _class(reader, text[1:-1])
    elif text == "." and kind == "sign":
        item = r"/[^\n]|\n/"
    else:
        return None
    reader.advance()
    return item if kind != "text" else f"({item})"


def _class(reader: _Reader, inner: str) -> str:
    negated = inner.startswith("^")
    signs = list(_characters(reader, inner[negated:], keep_range=True))
    if not signs:
        raise reader.error("a character class is empty")
    body = ""
    for position, sign in enumerate(signs):
        is_range = sign is None and 0 < position < len(signs) - 1
        body += "-" if is_range else _escaped("-" if sign is None else sign)
    return f"/[{'^' if negated else ''}{body}]/"


def _characters(reader: _Reader, text: str, *, keep_range: bool = False) -> Iterator[str | None]:
    """The characters a literal stands for; with `keep_range` None for a bare minus."""
    position = 0
    while position < len(text):
        if text[position] != "\\":
            yield None if keep_range and text[position] == "-" else text[position]
            position += 1
            continue
        escape = _ESCAPE.match(text, position)
        if escape is None or (escape[4] and escape[4] not in _CONTROL):
            raise reader.error(f"the escape {text[position : position + 2]!r} is not known")
        code = escape[1] or escape[2] or escape[3]
        if code and (int(code, 16) > 0x10FFFF or 0xD800 <= int(code, 16) < 0xE000):
            raise reader.error(f"{escape[0]} is no character")
        yield chr(int(code, 16)) if code else _CONTROL[escape[4]]
        position = escape.end()


def _escaped(character: str | None) -> str:
    assert character is not None
    if character.isascii() and (character.isalnum() or character == "_"):
        return character
    return f"\\x{{{ord(character):x}}}"


def _numbered(body: str, numbers: dict[str, str]) -> str:
    return re.sub(r"\$([A-Za-z0-9_-]+)\$", lambda match: numbers[match[1]], body)
