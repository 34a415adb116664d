"""What a template is read into: its tree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Dot:
    """`.`"""


@dataclass(frozen=True, slots=True)
class Nil:
    """`nil`"""


@dataclass(frozen=True, slots=True)
class Literal:
    """A text, a number, `true` or `false`."""

    value: str | int | float | bool


@dataclass(frozen=True, slots=True)
class Field:
    """`.A.B`"""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """`$x.A.B`; the name keeps its `$`."""

    name: str
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Function:
    """The name of a function."""

    name: str


@dataclass(frozen=True, slots=True)
class Command:
    """A function or value, and what it is given."""

    args: tuple[Operand, ...]


@dataclass(frozen=True, slots=True)
class Pipe:
    """Commands, each given what the one before it makes; and the variables that get the result."""

    commands: tuple[Command, ...]
    declared: tuple[str, ...] = ()
    is_assignment: bool = False


@dataclass(frozen=True, slots=True)
class Chain:
    """`(pipe).A.B`"""

    pipe: Pipe
    fields: tuple[str, ...]


Operand = Dot | Nil | Literal | Field | Variable | Function | Pipe | Chain


@dataclass(frozen=True, slots=True)
class Text:
    text: str


@dataclass(frozen=True, slots=True)
class Action:
    line: int
    pipe: Pipe


@dataclass(frozen=True, slots=True)
class If:
    line: int
    pipe: Pipe
    body: Nodes
    otherwise: Nodes


@dataclass(frozen=True, slots=True)
class With:
    line: int
    pipe: Pipe
    body: Nodes
    otherwise: Nodes


@dataclass(frozen=True, slots=True)
class Range:
    line: int
    pipe: Pipe
    body: Nodes
    otherwise: Nodes


@dataclass(frozen=True, slots=True)
class Break:
    line: int


@dataclass(frozen=True, slots=True)
class Continue:
    line: int


@dataclass(frozen=True, slots=True)
class Call:
    """`{{ template "name" pipe }}`"""

    line: int
    name: str
    pipe: Pipe | None


Node = Text | Action | If | With | Range | Break | Continue | Call
Nodes = tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Tree:
    """A whole template and the ones it defines."""

    root: Nodes
    definitions: Mapping[str, Nodes]
