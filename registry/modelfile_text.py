"""The text of a Modelfile: its instructions with their line numbers, and values in quotes.

A value is the rest of its line, or stands in quotation marks, `"…"` or `\"\"\"…\"\"\"`, and then goes on to
the mark that ends a line. Some texts fit between neither, and are written as a block, which is Puna's
own addition to the grammar (other programs refuse the line, rather than read something else):

    SYSTEM<<END
    any lines at all
    END
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass

from registry.errors import InvalidRequest

INSTRUCTIONS = (
    "from",
    "license",
    "template",
    "system",
    "adapter",
    "draft",
    "renderer",
    "parser",
    "parameter",
    "message",
    "requires",
)
_WITH_WORD = {"parameter": "a name and a value", "message": "a role and a text"}
_BLANKS = " \t"
_BLOCK = re.compile(r"([a-z]+)<<([A-Z][A-Z0-9_]*)(?:[ \t]+([^ \t]+))?[ \t\r]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction as it was read, without its quotation marks."""

    line: int
    name: str
    """In lower case, one of INSTRUCTIONS."""
    word: str
    """What stands before the value: the name of a PARAMETER, the role of a MESSAGE."""
    value: str
    value_line: int
    """Where the value begins."""


def decode_modelfile(content: bytes) -> str:
    """The text of a Modelfile on disk: UTF-8, or UTF-16 with a byte-order mark. Raises InvalidRequest."""
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"The Modelfile is not UTF-8 text (byte {error.start}).") from None


def read_instructions(text: str) -> Iterator[Instruction]:
    """The instructions in order. Raises InvalidRequest, with the line's number, for what is none.

    A file whose first line ends as on Windows is read as if all its lines ended with a newline alone.
    """
    lines = _lines(text)
    index = 0
    while index < len(lines):
        line = lines[index].lstrip(_BLANKS)
        if not line.strip() or line.startswith("#"):
            index += 1
            continue
        block = _BLOCK.fullmatch(line)
        instruction, index = _read_block(block, lines, index) if block else _read_line(line, lines, index)
        yield instruction


def write_instruction(head: str, text: str) -> str:
    """The lines of one instruction; `head` is its name, and the word that comes before the value if it has one."""
    if "\r" in text or any(line.rstrip().endswith('"""') for line in text.split("\n")[:-1]):
        return _write_block(head, text)
    if text and text == text.strip() and "\n" not in text and not text.startswith('"'):
        return f"{head} {text}"
    mark = '"""' if '"' in text else '"'
    return f"{head} {mark}{text}{mark}"


def _lines(text: str) -> list[str]:
    text = text.removeprefix("\ufeff")
    if text.partition("\n")[0].endswith("\r"):
        text = text.replace("\r\n", "\n")
    return text.split("\n")


def _read_line(line: str, lines: list[str], index: int) -> tuple[Instruction, int]:
    """An instruction and the index of the line after it."""
    number = index = index + 1
    match = re.match(r"([^ \t]+)[ \t]+(.*)", line, re.DOTALL)
    name = _known(match.group(1) if match else "", number)
    assert match is not None
    word, value = "", match.group(2).lstrip(_BLANKS)
    if name in _WITH_WORD:
        word, value = _split_word(name, value, number)
    if not value.startswith('"'):
        return Instruction(number, name, word, value.strip(), number), index
    mark = '"""' if value.startswith('"""') else '"'
    while not _is_closed(value, mark):
        if index == len(lines):
            raise InvalidRequest(f"(line {number}): unexpected EOF: the quoted text has no end", line=number)
        value += "\n" + lines[index]
        index += 1
    return Instruction(number, name, word, value.rstrip()[len(mark) : -len(mark)], number), index


def _split_word(name: str, value: str, number: int) -> tuple[str, str]:
    match = re.match(r"([^ \t]+)[ \t]+(?=\S)(.*)", value, re.DOTALL)
    if match is None:
        raise InvalidRequest(f"(line {number}): {name.upper()} needs {_WITH_WORD[name]}", line=number)
    return match.group(1), match.group(2)


def _is_closed(value: str, mark: str) -> bool:
    text = value.rstrip()
    return len(text) >= 2 * len(mark) and text.endswith(mark)


def _read_block(block: re.Match[str], lines: list[str], index: int) -> tuple[Instruction, int]:
    number = index + 1
    name, mark, word = _known(block.group(1), number), block.group(2), block.group(3) or ""
    if name in _WITH_WORD and not word:
        raise InvalidRequest(f"(line {number}): {name.upper()} needs {_WITH_WORD[name]}", line=number)
    if word and name not in _WITH_WORD:
        raise InvalidRequest(f"(line {number}): the text of a block begins on the line after its {mark}", line=number)
    for end in range(number, len(lines)):
        if lines[end].strip() == mark:
            return Instruction(number, name, word, "\n".join(lines[number:end]), number + 1), end + 1
    raise InvalidRequest(f"(line {number}): unexpected EOF: the block has no {mark} on a line of its own", line=number)


def _known(name: str, number: int) -> str:
    if name.lower() not in INSTRUCTIONS:
        names = ", ".join(f'"{one}"' for one in INSTRUCTIONS[:-1])
        raise InvalidRequest(f'(line {number}): command must be one of {names}, or "{INSTRUCTIONS[-1]}"', line=number)
    return name.lower()


def _write_block(head: str, text: str) -> str:
    name, _, word = head.partition(" ")
    inside = {line.strip() for line in text.split("\n")}
    mark = "END"
    while mark in inside:
        mark += "_"
    return f"{name}<<{mark}{' ' + word if word else ''}\n{text}\n{mark}"
