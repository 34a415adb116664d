"""Executes a template's tree."""

from __future__ import annotations

from runner.chat.budget import Budget, OverBudget
from runner.chat.go_template import nodes
from runner.chat.go_template.errors import Fault, GoTemplateError
from runner.chat.go_template.formatting import show, shows_itself
from runner.chat.go_template.functions import call_function
from runner.chat.go_template.values import Value, field_of, is_true, sorted_items

MAX_DEPTH = 120
"""Of blocks, parentheses and templates that call one another."""

_NOTHING = object()
"""In place of the value that the command before makes, where there is none."""


def execute(tree: nodes.Tree, data: Value, budget: Budget) -> str:
    """The text that a template makes of `data`. Raises GoTemplateError."""
    execution = _Execution(tree, budget)
    execution.run(tree.root, data)
    # Bytes of texts that were cut within a character meet again only here.
    return "".join(execution.written).encode("utf-8", "surrogateescape").decode("utf-8", "replace")


class _Break(Exception):
    pass


class _Continue(Exception):
    pass


class _Execution:
    """One run of a template, or of one it calls: what it wrote and the variables it sees."""

    def __init__(self, tree: nodes.Tree, budget: Budget) -> None:
        self.written: list[str] = []
        self._tree = tree
        self._budget = budget
        self._variables: list[tuple[str, Value]] = []
        self._depth = 0
        self._line = 1

    def run(self, body: nodes.Nodes, dot: Value) -> None:
        """Raises GoTemplateError."""
        outer, self._variables = self._variables, [("$", dot)]
        try:
            self._walk(body, dot)
        except (Fault, OverBudget) as error:
            raise GoTemplateError(str(error), self._line) from None
        except RecursionError:
            raise GoTemplateError("values are nested too deep", self._line) from None
        finally:
            self._variables = outer

    def _walk(self, body: nodes.Nodes, dot: Value) -> None:
        self._descend()
        for node in body:
            self._budget.tick()
            if isinstance(node, nodes.Text):
                self._write(node.text)
                continue
            self._line = node.line
            match node:
                case nodes.Action():
                    value = self._pipe(node.pipe, dot)
                    if not node.pipe.declared:
                        self._write(show(value))
                case nodes.If() | nodes.With():
                    self._choose(node, dot)
                case nodes.Range():
                    self._range(node, dot)
                case nodes.Call():
                    self._call(node, dot)
                case nodes.Break():
                    raise _Break
                case nodes.Continue():
                    raise _Continue
        self._depth -= 1

    def _descend(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Fault(f"blocks, parentheses and templates are nested more than {MAX_DEPTH} deep")

    def _write(self, text: str) -> None:
        self._budget.spend(len(text))
        self.written.append(text)

    def _choose(self, node: nodes.If | nodes.With, dot: Value) -> None:
        known = len(self._variables)
        value = self._pipe(node.pipe, dot)
        if is_true(value):
            self._walk(node.body, value if isinstance(node, nodes.With) else dot)
        else:
            self._walk(node.otherwise, dot)
        del self._variables[known:]

    def _range(self, node: nodes.Range, dot: Value) -> None:
        known = len(self._variables)
        depth = self._depth
        value = self._pipe(node.pipe, dot)
        declared = len(self._variables)
        turns = 0
        for index, element in self._turns(value, len(node.pipe.declared)):
            turns += 1
            self._budget.tick()
            self._set_turn(node.pipe, index, element)
            try:
                self._walk(node.body, element)
            except _Break:
                break
            except _Continue:
                pass
            finally:
                self._depth = depth
                del self._variables[declared:]
        if not turns:
            self._walk(node.otherwise, dot)
        del self._variables[known:]

    def _turns(self, value: Value, variables: int) -> list[tuple[Value, Value]] | enumerate[int]:
        match value:
            case None:
                return []
            case list():
                return list(enumerate(value))
            case dict():
                return list(sorted_items(value))
            case int() if not isinstance(value, bool):
                if variables > 1:
                    raise Fault(f"can't use {value} to iterate over more than one variable")
                return enumerate(range(value))
            case _:
                raise Fault(f"range can't iterate over {show(value)[:40]}")

    def _set_turn(self, pipe: nodes.Pipe, index: Value, element: Value) -> None:
        values = (element,) if len(pipe.declared) == 1 else (index, element)
        if pipe.is_assignment:
            for name, value in zip(pipe.declared, values, strict=False):
                self._assign(name, value)
        elif pipe.declared:
            self._variables[-len(pipe.declared) :] = zip(pipe.declared, values, strict=False)

    def _call(self, node: nodes.Call, dot: Value) -> None:
        body = self._tree.definitions.get(node.name)
        if body is None:
            raise Fault(f"template {node.name[:40]!a} not defined")
        value = None if node.pipe is None else self._pipe(node.pipe, dot)
        line, depth = self._line, self._depth
        self._descend()
        self.run(body, value)
        self._line, self._depth = line, depth

    # --- values -------------------------------------------------------------------------------

    def _pipe(self, pipe: nodes.Pipe, dot: Value) -> Value:
        """The value of a pipeline, given to the variables it declares."""
        self._descend()
        value: Value = _NOTHING
        for command in pipe.commands:
            value = self._command(command, dot, value)
        for name in pipe.declared:
            if pipe.is_assignment:
                self._assign(name, value)
            else:
                self._variables.append((name, value))
        self._depth -= 1
        return value

    def _command(self, command: nodes.Command, dot: Value, final: Value) -> Value:
        self._budget.tick()
        first, args = command.args[0], command.args[1:]
        if isinstance(first, nodes.Function):
            return self._function(first.name, args, dot, final)
        if isinstance(first, nodes.Nil):
            raise Fault("nil is not a command")
        if args or final is not _NOTHING:
            if isinstance(first, nodes.Field | nodes.Chain) or (isinstance(first, nodes.Variable) and first.fields):
                names = first.names if isinstance(first, nodes.Field) else first.fields
                raise Fault(f"{names[-1][:100]} is not a method but has arguments")
            raise Fault("can't give argument to a value that is no function")
        return self._operand(first, dot)

    def _function(self, name: str, operands: tuple[nodes.Operand, ...], dot: Value, final: Value) -> Value:
        if name in ("and", "or") and (operands or final is not _NOTHING):
            value: Value = None
            for operand in operands:
                value = self._operand(operand, dot)
                if is_true(value) == (name == "or"):
                    return value
            return value if final is _NOTHING else final
        args = [self._operand(operand, dot) for operand in operands]
        if final is not _NOTHING:
            args.append(final)
        return call_function(name, args, self._budget)

    def _operand(self, operand: nodes.Operand, dot: Value) -> Value:
        match operand:
            case nodes.Dot():
                return dot
            case nodes.Field():
                return self._fields(dot, operand.names)
            case nodes.Variable():
                return self._fields(self._variable(operand.name), operand.fields)
            case nodes.Literal():
                return operand.value
            case nodes.Pipe():
                return self._pipe(operand, dot)
            case nodes.Chain():
                return self._fields(self._pipe(operand.pipe, dot), operand.fields)
            case nodes.Function():
                return call_function(operand.name, (), self._budget)
            case nodes.Nil():
                return None

    @staticmethod
    def _fields(receiver: Value, names: tuple[str, ...]) -> Value:
        # Where there is nothing at all, its fields are nothing too; where a map lacks the entry, that is a mistake.
        if receiver is None:
            return None
        for name in names:
            if receiver is None:
                raise Fault(f"nil pointer evaluating interface {{}}.{name[:100]}")
            is_method = name == "String" and shows_itself(receiver)
            receiver = show(receiver) if is_method else field_of(receiver, name)
        return receiver

    def _variable(self, name: str) -> Value:
        for known, value in reversed(self._variables):
            if known == name:
                return value
        raise Fault(f"undefined variable: {name[:100]}")

    def _assign(self, name: str, value: Value) -> None:
        for index in range(len(self._variables) - 1, -1, -1):
            if self._variables[index][0] == name:
                self._variables[index] = (name, value)
                return
        raise Fault(f"undefined variable: {name[:100]}")
