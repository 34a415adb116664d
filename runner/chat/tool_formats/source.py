"""Text that arrives in pieces, and the generators that read it as if it were whole.

A reader is a generator that yields whenever it needs more text and returns what it has read. It
sees only positions, never pieces; so where the pieces were cut cannot matter.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

_T = TypeVar("_T")

Steps = Generator[None, None, _T]
Emit = Callable[[str], None]

BLANKS = " \t\r\n"


class Source:
    """One answer's text so far, and how much of it was read."""

    __slots__ = ("is_ended", "position", "text")

    def __init__(self) -> None:
        self.text = ""
        self.position = 0
        self.is_ended = False

    def push(self, text: str) -> None:
        # What was read is never looked at again, except from a position that its reader still holds.
        self.text += text

    def forget_read(self) -> None:
        """Drop what was read; positions held by readers become worthless."""
        if self.position:
            self.text = self.text[self.position :]
            self.position = 0

    def since(self, start: int) -> str:
        return self.text[start : self.position]


def until(source: Source, markers: Sequence[str], emit: Emit) -> Steps[str | None]:
    """Emit the text before the first marker and read past that; None when the text ended without one.

    Of markers that begin at the same place the longest that is there counts.
    """
    while True:
        source.forget_read()
        text = source.text
        found = [(position, -len(marker), marker) for marker in markers if (position := text.find(marker)) >= 0]
        open_from = open_end(source, markers)
        if found:
            position, _, marker = min(found)
            if position < open_from:
                if position:
                    emit(text[:position])
                source.position = position + len(marker)
                return marker
        elif open_from:
            emit(text[:open_from])
            source.position = open_from
        if source.is_ended:
            return None
        yield


def skip_blanks(source: Source) -> Steps[None]:
    while True:
        while source.position < len(source.text) and source.text[source.position] in BLANKS:
            source.position += 1
        if source.position < len(source.text) or source.is_ended:
            return
        yield


def peek(source: Source) -> Steps[str]:
    """The next character, which stays unread; empty at the end."""
    while source.position >= len(source.text) and not source.is_ended:
        yield
    return source.text[source.position : source.position + 1]


def take(source: Source, literal: str) -> Steps[bool]:
    """Read `literal` if the text goes on with it."""
    while True:
        ahead = source.text[source.position : source.position + len(literal)]
        if ahead == literal:
            source.position += len(literal)
            return True
        if source.is_ended or not literal.startswith(ahead):
            return False
        yield


def collect(source: Source, markers: Sequence[str]) -> Steps[tuple[str, str | None]]:
    """The text before the first marker, and that marker, which is read too; None at the end. Emits nothing."""
    start = searched = source.position
    longest = max(map(len, markers))
    while True:
        found = [
            (position, -len(marker), marker)
            for marker in markers
            if (position := source.text.find(marker, searched)) >= 0
        ]
        if found:
            position, _, marker = min(found)
            if position < open_end(source, markers):
                source.position = position + len(marker)
                return source.text[start:position], marker
        else:
            searched = max(start, len(source.text) - longest + 1)
        if source.is_ended:
            source.position = len(source.text)
            return source.text[start:], None
        yield


def open_end(source: Source, markers: Sequence[str]) -> int:
    """Where in the text something begins that may yet become a marker; the text's length when nothing does."""
    return len(source.text) if source.is_ended else len(source.text) - overlap(source.text, markers)


def overlap(text: str, markers: Sequence[str]) -> int:
    """Length of the longest end of `text` that begins one of the markers."""
    longest = min(max(map(len, markers), default=1) - 1, len(text))
    for length in range(longest, 0, -1):
        end = text[-length:]
        if any(len(marker) > length and marker.startswith(end) for marker in markers):
            return length
    return 0
