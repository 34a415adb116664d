"""Where in a Modelfile something stands that only the daemon could find wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cli.errors import ApiError, WrongUsage

_INSTRUCTIONS = {
    "parser": "parser",
    "renderer": "renderer",
    "adapters": "adapter",
    "draft_files": "draft",
    "parameters.draft_model": "draft",
}
"""Fields of the API's request that one instruction fills."""


@dataclass(frozen=True, slots=True)
class ModelfilePlace:
    """A Modelfile that has been read."""

    shown: str
    """As people are told of it."""
    lines: Mapping[str, Sequence[int]]
    """Of each kind of instruction."""
    template_line: int | None = None
    """Where the first line of the template stands."""

    def with_line(self, error: ApiError) -> ApiError | WrongUsage:
        """The error as it should be told: with the line, when it is about one."""
        line = self._line(error.facts)
        return error if line is None else WrongUsage(f"{self.shown}: (line {line}): {error.message}")

    def _line(self, facts: Mapping[str, object]) -> int | None:
        field, line = facts.get("field"), facts.get("line")
        if field == "template" and isinstance(line, int) and self.template_line is not None:
            return self.template_line + line - 1
        instruction = "requires" if "requires" in facts else _INSTRUCTIONS.get(str(field))
        lines = self.lines.get(instruction or "", ())
        # Of several nobody knows which one is meant.
        return lines[0] if len(lines) == 1 else None
