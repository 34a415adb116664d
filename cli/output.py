"""Writing to the terminal: text that cannot harm it, tables, JSON, notes and errors."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cli.errors import DISK_FULL, FAILED, CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn, TextIO

_GAPS = (4, 2)
_SHOWN_CONTROLS = {number: None for number in (*range(0x20), *range(0x7F, 0xA0)) if number not in (0x09, 0x0A)}


class OutputFailed(CliError):
    """Standard output cannot be written, as on a full disk."""


def prepare_streams() -> None:
    """Make standard output and error take any text: what the locale cannot show becomes `?`.

    Those that were closed take it too, and forget it.
    """
    import os

    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")


def without_controls(text: str) -> str:
    """The text without control characters other than tab and newline.

    Answers, licences and names are strangers' data: escape sequences in them would drive the terminal.
    """
    return text if text.isprintable() else text.translate(_SHOWN_CONTROLS)


def write(text: str, stream: TextIO | None = None) -> None:
    """Write a piece of text at once; terminals get it without control characters, files as it is."""
    stream = sys.stdout if stream is None else stream
    try:
        stream.write(without_controls(text) if stream.isatty() else text)
        stream.flush()
    except OSError as error:
        fail_output(error)


def flush_output() -> None:
    """Write what is held back. Raises OutputFailed, or BrokenPipeError when the reader has left."""
    try:
        sys.stdout.flush()
    except OSError as error:
        fail_output(error)


def drop_output() -> None:
    """Forget what is held back: Python flushes again at exit, which must not fail."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def fail_output(error: OSError) -> NoReturn:
    """Say what a failed write means: OutputFailed, or BrokenPipeError when the reader has left."""
    import errno

    if isinstance(error, BrokenPipeError):
        raise error
    code = DISK_FULL if error.errno in (errno.ENOSPC, errno.EDQUOT) else FAILED
    raise OutputFailed(f"What there is to say cannot be written ({error.strerror}).", code) from error


def write_line(text: str = "") -> None:
    write(text + "\n")


def note(text: str) -> None:
    """A line beside the output, on standard error."""
    write(text + "\n", sys.stderr)


def show_error(message: str) -> None:
    note(f"Error: {message}")


def write_json(value: object) -> None:
    import json

    # Escaped when the output cannot carry everything, so that it stays the same value.
    is_unicode = (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")
    write_line(json.dumps(value, indent=2, ensure_ascii=not is_unicode))


def write_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table as wide as it needs to be; on a terminal too narrow for it, a block for each row."""
    width = terminal_width() if sys.stdout.isatty() else None
    for line in table_lines(headers, rows, width):
        write_line(line)


def table_lines(headers: Sequence[str], rows: Sequence[Sequence[str]], width: int | None) -> list[str]:
    """The lines of a table, none longer than `width` unless one value alone is."""
    cells = [[without_controls(cell) for cell in row] for row in (headers, *rows)]
    widths = [max(len(cell) for cell in column) for column in zip(*cells, strict=True)]
    for gap in _GAPS:
        if width is None or sum(widths) + gap * (len(widths) - 1) <= width:
            return [_join(row, widths, gap) for row in cells]
    lines = []
    label_width = max(map(len, headers[1:]), default=0)
    for row in cells[1:]:
        lines.append(row[0])
        pairs = zip(headers[1:], row[1:], strict=True)
        lines += [f"  {header.ljust(label_width)}  {cell}" for header, cell in pairs]
    return lines


def terminal_width() -> int:
    import shutil

    return shutil.get_terminal_size().columns


def _join(row: Sequence[str], widths: Sequence[int], gap: int) -> str:
    return (" " * gap).join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
