"""What can be told of a template's tree without executing it, and trees made from trees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from runner.chat.go_template.nodes import (
    Action,
    Call,
    Chain,
    Command,
    Field,
    If,
    Node,
    Nodes,
    Operand,
    Pipe,
    Range,
    Tree,
    Variable,
    With,
)


def field_names(tree: Tree) -> frozenset[str]:
    """The names of all fields that are mentioned anywhere, in lower case."""
    bodies = (tree.root, *tree.definitions.values())
    return frozenset(name.lower() for body in bodies for name in _names(body))


def with_field(tree: Tree, name: str) -> Tree:
    """The tree with `{{ .name }}` behind all else."""
    return replace(tree, root=(*tree.root, Action(1, Pipe((Command((Field((name,)),)),)))))


def cut_at_field(tree: Tree, name: str) -> Tree:
    """The tree without what comes behind the first action that writes `.name`."""
    return replace(tree, root=_cut(tree.root, name)[0])


def _cut(nodes: Nodes, name: str) -> tuple[Nodes, bool]:
    """The nodes up to that action, and whether it was among them."""
    kept: list[Node] = []
    for node in nodes:
        if isinstance(node, If | With | Range):
            body, is_cut = _cut(node.body, name)
            otherwise, is_cut_there = ((), True) if is_cut else _cut(node.otherwise, name)
            kept.append(replace(node, body=body, otherwise=otherwise))
            is_cut = is_cut or is_cut_there
        else:
            kept.append(node)
            is_cut = isinstance(node, Action) and _mentions(node.pipe, name)
        if is_cut:
            return tuple(kept), True
    return tuple(kept), False


def _mentions(pipe: Pipe, name: str) -> bool:
    operands = [operand for command in pipe.commands for operand in command.args]
    return any(
        (isinstance(one, Field) and name in one.names) or (isinstance(one, Pipe) and _mentions(one, name))
        for one in operands
    )


def _names(nodes: Nodes) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, Action | If | With | Range | Call) and node.pipe is not None:
            yield from _names_of_pipe(node.pipe)
        if isinstance(node, If | With | Range):
            yield from _names(node.body)
            yield from _names(node.otherwise)


def _names_of_pipe(pipe: Pipe) -> Iterator[str]:
    for command in pipe.commands:
        for operand in command.args:
            yield from _names_of_operand(operand)


def _names_of_operand(operand: Operand) -> Iterator[str]:
    match operand:
        case Field():
            yield from operand.names
        case Variable():
            yield operand.name
            yield from operand.fields
        case Pipe():
            yield from _names_of_pipe(operand)
        case Chain():
            yield from _names_of_pipe(operand.pipe)
            yield from operand.fields
