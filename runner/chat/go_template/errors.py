"""What can be wrong with a template in Go's language."""

from __future__ import annotations


class GoTemplateError(Exception):
    """The template cannot be read, or fails with what it was given. `line` is where, counted from 1."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(f"line {line}: {message}")
        self.message = message
        self.line = line


class Fault(Exception):
    """Something an operand or function cannot do; whoever knows the line makes a GoTemplateError of it."""
