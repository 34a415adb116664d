"""Cuts a template into its texts and the tokens of its actions."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from dataclasses import dataclass

from runner.chat.go_template.errors import GoTemplateError

_SPACE = " \t\r\n"
_OPEN, _CLOSE = "{{", "}}"
_NUMBER = re.compile(
    r"[+-]?(?:0[xX][0-9a-fA-F_]+(?:\.[0-9a-fA-F_]*)?(?:[pP][+-]?[0-9_]+)?"
    r"|0[oO][0-7_]+|0[bB][01_]+"
    r"|(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][+-]?[0-9_]+)?)"
)
_QUOTED = re.compile(r'"(?:[^"\\\n]|\\[^\n])*"')
_CHARACTER = re.compile(r"'(?:[^'\\\n]|\\[^\n])+'")
_RAW = re.compile(r"`[^`]*`")
_WORD = re.compile(r"\w+")
_END = re.compile(r"[ \t\r\n]-\}\}|\}\}")
_MARKS = "()|,="


class Kind(enum.Enum):
    TEXT = "text"
    OPEN = "{{"
    CLOSE = "}}"
    SPACE = "a blank"
    WORD = "word"
    FIELD = "field"
    VARIABLE = "variable"
    DOT = "."
    STRING = "string"
    CHARACTER = "character"
    NUMBER = "number"
    MARK = "mark"
    """One of ( ) | , = :="""
    END = "the end of the template"


@dataclass(frozen=True, slots=True)
class Token:
    kind: Kind
    text: str
    line: int

    def __str__(self) -> str:
        return f'"{self.text[:40]}"' if self.text.strip() else self.kind.value


def tokens_of(source: str) -> Iterator[Token]:
    """Every token, ending with END. Blanks within actions are tokens, since `.A .B` is not `.A.B`.

    Raises GoTemplateError.
    """
    position, line = 0, 1
    trims = False
    while True:
        start = source.find(_OPEN, position)
        text = source[position:] if start < 0 else source[position:start]
        shown = text.lstrip(_SPACE) if trims else text
        if start >= 0 and _trims_left(source, start):
            shown = shown.rstrip(_SPACE)
        if shown:
            yield Token(Kind.TEXT, shown, line)
        line += text.count("\n")
        if start < 0:
            yield Token(Kind.END, "", line)
            return
        action = _Action(source, start, line)
        yield from action.tokens()
        position, line, trims = action.position, action.line, action.trims_right


def _trims_left(source: str, start: int) -> bool:
    """Whether the action there begins with `{{-` and a blank."""
    return source.startswith("-", start + 2) and source[start + 3 : start + 4] in tuple(_SPACE)


class _Action:
    """Reads one action, from `{{` to behind `}}`."""

    def __init__(self, source: str, start: int, line: int) -> None:
        self.source = source
        self.line = line
        self.trims_right = False
        self._is_trimming = _trims_left(source, start)
        self.position = start + 2 + self._is_trimming
        self._parentheses = 0

    def tokens(self) -> Iterator[Token]:
        # A comment stands right behind the mark, or behind the one blank that belongs to a trimming mark.
        begin = self.position + self._is_trimming
        if self.source.startswith("/*", begin):
            self._skip_comment(begin)
            return
        yield Token(Kind.OPEN, _OPEN, self.line)
        while not self._is_closed():
            yield self._next()
        if self._parentheses:
            raise self._wrong("unclosed left parenthesis")
        yield Token(Kind.CLOSE, _CLOSE, self.line)

    def _skip_comment(self, begin: int) -> None:
        end = self.source.find("*/", begin + 2)
        if end < 0:
            raise self._wrong("unclosed comment")
        self.line += self.source.count("\n", self.position, end)
        self.position = end + 2
        if not self._is_closed():
            raise self._wrong("comment ends before closing delimiter")

    def _is_closed(self) -> bool:
        """Whether the action ends here; if so, reads past its end."""
        match = _END.match(self.source, self.position)
        if match is None:
            return False
        self.trims_right = len(match.group()) > len(_CLOSE)
        self.line += match.group().count("\n")
        self.position = match.end()
        return True

    def _next(self) -> Token:
        source, position = self.source, self.position
        character = source[position : position + 1]
        if not character:
            raise self._wrong("unclosed action")
        if character in _SPACE:
            end = position
            # The blank before `-}}` belongs to the end of the action.
            while source[end : end + 1] in tuple(_SPACE) and not source.startswith("-}}", end + 1):
                end += 1
            return self._token(Kind.SPACE, end)
        if source.startswith(":=", position):
            return self._token(Kind.MARK, position + 2)
        if character in _MARKS:
            self._parentheses += {"(": 1, ")": -1}.get(character, 0)
            if self._parentheses < 0:
                raise self._wrong("unexpected right parenthesis")
            return self._token(Kind.MARK, position + 1)
        if character == '"':
            return self._matched(_QUOTED, Kind.STRING, "unterminated quoted string")
        if character == "`":
            return self._matched(_RAW, Kind.STRING, "unterminated raw quoted string")
        if character == "'":
            return self._matched(_CHARACTER, Kind.CHARACTER, "unterminated character constant")
        return self._word_or_number(character)

    def _word_or_number(self, character: str) -> Token:
        source, position = self.source, self.position
        following = source[position + 1 : position + 2]
        if character in "+-" or character in "0123456789" or (character == "." and following in tuple("0123456789")):
            token = self._matched(_NUMBER, Kind.NUMBER, f"bad number syntax: {source[position : position + 20]!a}")
            if _WORD.match(source, self.position) or source.startswith(".", self.position):
                raise self._wrong(f"bad number syntax: {source[position : self.position + 1]!a}")
            return token
        if character == ".":
            match = _WORD.match(source, position + 1)
            return self._ended(self._token(Kind.FIELD if match else Kind.DOT, match.end() if match else position + 1))
        if character == "$":
            match = _WORD.match(source, position + 1)
            return self._ended(self._token(Kind.VARIABLE, match.end() if match else position + 1))
        match = _WORD.match(source, position)
        if match is None:
            raise self._wrong(f"unexpected {character!a} in an action")
        return self._ended(self._token(Kind.WORD, match.end()))

    def _ended(self, token: Token) -> Token:
        """Names end where something can end them, so that a misspelt one is not read as two."""
        following = self.source[self.position : self.position + 1]
        if following and following not in " \t\r\n.,|:)(" and not self.source.startswith(_CLOSE, self.position):
            raise self._wrong(f"unexpected {following!a} after {token}")
        return token

    def _matched(self, pattern: re.Pattern[str], kind: Kind, complaint: str) -> Token:
        match = pattern.match(self.source, self.position)
        if match is None:
            raise self._wrong(complaint)
        return self._token(kind, match.end())

    def _token(self, kind: Kind, end: int) -> Token:
        text = self.source[self.position : end]
        token = Token(kind, text, self.line)
        self.line += text.count("\n")
        self.position = end
        return token

    def _wrong(self, message: str) -> GoTemplateError:
        return GoTemplateError(message, self.line)
