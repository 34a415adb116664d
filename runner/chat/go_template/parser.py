"""Reads the tokens of a template into its tree."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import NoReturn, TypeVar

from runner.chat.go_template.errors import Fault, GoTemplateError
from runner.chat.go_template.lexer import Kind, Token, tokens_of
from runner.chat.go_template.literals import character_value, number_value, text_value
from runner.chat.go_template.nodes import (
    Action,
    Break,
    Call,
    Chain,
    Command,
    Continue,
    Dot,
    Field,
    Function,
    If,
    Literal,
    Nil,
    Node,
    Nodes,
    Operand,
    Pipe,
    Range,
    Text,
    Tree,
    Variable,
    With,
)

MAX_NESTING = 100
"""Of blocks and parentheses within one another."""

_V = TypeVar("_V")

_KEYWORDS = frozenset({"block", "break", "continue", "define", "else", "end", "if", "range", "template", "with"})
_BRANCHES: dict[str, type[If] | type[With] | type[Range]] = {"if": If, "with": With, "range": Range}
_ENDS = ("end", "else")


def parse(source: str, functions: Collection[str]) -> Tree:
    """The tree of a template that may call `functions`. Raises GoTemplateError."""
    return _Parser(source, functions).tree()


class _Parser:
    """Reads one template; what it has read stands in `_tokens` before `_at`."""

    def __init__(self, source: str, functions: Collection[str]) -> None:
        self._tokens = list(tokens_of(source))
        self._at = 0
        self._functions = functions
        self._variables = ["$"]
        self._definitions: dict[str, Nodes] = {}
        self._nesting = 0
        self._ranges = 0

    def tree(self) -> Tree:
        nodes: list[Node] = []
        while (token := self._next()).kind is not Kind.END:
            if token.kind is Kind.OPEN and self._peek_word() == "define":
                self._define()
            elif token.kind is Kind.OPEN and self._peek_word() in _ENDS:
                self._fail(f"unexpected {{{{{self._peek_word()}}}}}", token)
            else:
                nodes.append(self._node(token))
        return Tree(tuple(nodes), self._definitions)

    # --- what stands in texts: blocks and actions ---------------------------------------------

    def _node(self, token: Token) -> Node:
        if token.kind is Kind.TEXT:
            return Text(token.text)
        word = self._peek_word()
        if word not in _KEYWORDS:
            return Action(token.line, self._pipe("command"))
        self._next_token()
        match word:
            case "break" | "continue":
                self._expect_close(word)
                if not self._ranges:
                    self._fail(f"{{{{{word}}}}} outside {{{{range}}}}", token)
                return Break(token.line) if word == "break" else Continue(token.line)
            case "template":
                name = self._name(word)
                pipe = None if self._closes() else self._pipe(word)
                return Call(token.line, name, pipe)
            case "block":
                name = self._name(word)
                pipe = self._pipe(word)
                self._definition(name, token)
                return Call(token.line, name, pipe)
            case "define" | "end" | "else":
                self._fail(f"unexpected {{{{{word}}}}}", token)
        return self._branch(word, token.line)

    def _branch(self, word: str, line: int) -> Node:
        known = len(self._variables)
        with self._nested():
            pipe = self._pipe(word)
            self._ranges += word == "range"
            body, end = self._nodes()
            self._ranges -= word == "range"
            otherwise: Nodes = ()
            if end == "else":
                otherwise = self._otherwise(word)
        del self._variables[known:]
        return _BRANCHES[word](line, pipe, body, otherwise)

    def _otherwise(self, word: str) -> Nodes:
        if self._peek_word() == word != "range":
            following = self._next_token()
            return (self._branch(word, following.line),)
        self._expect_close("else")
        nodes, end = self._nodes()
        if end != "end":
            self._fail("expected end; found {{else}}", self._tokens[self._at - 1])
        return nodes

    def _nodes(self) -> tuple[Nodes, str]:
        """What stands before `{{end}}` or `{{else}}`, and which of them it was; the latter is not yet closed."""
        nodes: list[Node] = []
        while True:
            token = self._next()
            if token.kind is Kind.END:
                self._fail("unexpected EOF: a block has no {{end}}", token)
            word = self._peek_word() if token.kind is Kind.OPEN else ""
            if word in _ENDS:
                self._next_token()
                if word == "end":
                    self._expect_close("end")
                return tuple(nodes), word
            nodes.append(self._node(token))

    def _define(self) -> None:
        token = self._next_token()
        name = self._name("define")
        self._expect_close("define")
        self._definition(name, token)

    def _definition(self, name: str, token: Token) -> None:
        """Read the body of a template of that name, which knows no variables but its own."""
        variables, self._variables = self._variables, ["$"]
        ranges, self._ranges = self._ranges, 0
        with self._nested():
            nodes, end = self._nodes()
        if end != "end":
            self._fail("unexpected {{else}}", token)
        self._variables, self._ranges = variables, ranges
        if name not in self._definitions or _is_empty(self._definitions[name]):
            self._definitions[name] = nodes
        elif not _is_empty(nodes):
            self._fail(f"template: multiple definition of template {name[:40]!a}", token)

    def _name(self, context: str) -> str:
        token = self._next_token()
        if token.kind is not Kind.STRING:
            self._fail(f"unexpected {token} in {context} clause", token)
        return self._value(token, text_value)

    # --- what stands in actions ---------------------------------------------------------------

    def _pipe(self, context: str, end: str = "}}") -> Pipe:
        declared, is_assignment = self._declared(context)
        commands: list[Command] = []
        while True:
            token = self._next_token()
            if token.text == end:
                break
            self._at -= 1
            commands.append(self._command(token, context))
        if not commands:
            self._fail(f"missing value for {context}", token)
        for number, command in enumerate(commands[1:], 2):
            if isinstance(command.args[0], Literal | Dot | Nil):
                self._fail(f"non executable command in pipeline stage {number}", token)
        return Pipe(tuple(commands), tuple(declared), is_assignment)

    def _declared(self, context: str) -> tuple[list[str], bool]:
        """The variables before `:=` or `=`, if there are any."""
        declared: list[str] = []
        while self._peek_token().kind is Kind.VARIABLE:
            start = self._at
            variable = self._next_token()
            mark = self._next_token()
            if mark.kind is not Kind.MARK or mark.text not in (":=", "=", ","):
                self._at = start
                break
            declared.append(variable.text)
            self._variables.append(variable.text)
            if mark.text != ",":
                return declared, mark.text == "="
            if context != "range" or len(declared) == 2:
                self._fail(f"too many declarations in {context}", mark)
            if self._peek_token().kind is not Kind.VARIABLE:
                self._fail("range can only initialize variables", mark)
        return declared, False

    def _command(self, first: Token, context: str) -> Command:
        args: list[Operand] = []
        while True:
            self._peek_token()
            operand = self._operand()
            if operand is not None:
                args.append(operand)
            token = self._next()
            if token.kind is Kind.SPACE:
                continue
            if token.kind is Kind.CLOSE or token.text == ")":
                self._at -= 1
            elif token.text != "|" or token.kind is not Kind.MARK:
                self._fail(f"unexpected {token} in {context if not args else 'operand'}", token)
            break
        if not args:
            self._fail("empty command", first)
        return Command(tuple(args))

    def _operand(self) -> Operand | None:
        start = self._at
        operand = self._term(self._next())
        if operand is None:
            self._at = start
            return None
        names = []
        while self._tokens[self._at].kind is Kind.FIELD:
            names.append(self._next().text[1:])
        if not names:
            return operand
        if isinstance(operand, Field):
            return Field((*operand.names, *names))
        if isinstance(operand, Variable):
            return Variable(operand.name, (*operand.fields, *names))
        if isinstance(operand, Literal | Dot | Nil):
            self._fail(f"unexpected .{names[0]} after term", self._tokens[start])
        pipe = operand if isinstance(operand, Pipe) else Pipe((Command((operand,)),))
        return Chain(pipe, tuple(names))

    def _term(self, token: Token) -> Operand | None:
        match token.kind:
            case Kind.WORD:
                return self._word(token)
            case Kind.DOT:
                return Dot()
            case Kind.FIELD:
                return Field((token.text[1:],))
            case Kind.VARIABLE:
                if token.text not in self._variables:
                    self._fail(f"undefined variable {token.text[:40]!a}", token)
                return Variable(token.text, ())
            case Kind.NUMBER:
                return Literal(self._value(token, number_value))
            case Kind.CHARACTER:
                return Literal(self._value(token, character_value))
            case Kind.STRING:
                return Literal(self._value(token, text_value))
            case Kind.MARK if token.text == "(":
                with self._nested():
                    return self._pipe("parenthesized pipeline", ")")
        return None

    def _word(self, token: Token) -> Operand:
        match token.text:
            case "true" | "false":
                return Literal(token.text == "true")
            case "nil":
                return Nil()
        if token.text in _KEYWORDS:
            self._fail(f"unexpected {token} in operand", token)
        if token.text not in self._functions:
            self._fail(f"function {token.text[:40]!a} not defined", token)
        return Function(token.text)

    # --- tokens -------------------------------------------------------------------------------

    def _next(self) -> Token:
        token = self._tokens[self._at]
        self._at += 1
        return token

    def _next_token(self) -> Token:
        """The next that is no blank."""
        token = self._peek_token()
        self._at += 1
        return token

    def _peek_token(self) -> Token:
        """Passes over blanks and shows what comes then."""
        if self._tokens[self._at].kind is Kind.SPACE:
            self._at += 1
        return self._tokens[self._at]

    def _peek_word(self) -> str:
        token = self._peek_token()
        return token.text if token.kind is Kind.WORD else ""

    def _closes(self) -> bool:
        """Whether the action ends here; if so, reads its end."""
        is_end = self._peek_token().kind is Kind.CLOSE
        self._at += is_end
        return is_end

    def _expect_close(self, context: str) -> None:
        if not self._closes():
            self._fail(f"unexpected {self._peek_token()} in {context}", self._peek_token())

    @contextmanager
    def _nested(self) -> Iterator[None]:
        self._nesting += 1
        if self._nesting > MAX_NESTING:
            self._fail(f"blocks and parentheses are nested more than {MAX_NESTING} deep", self._tokens[self._at - 1])
        yield
        self._nesting -= 1

    def _value(self, token: Token, read: Callable[[str], _V]) -> _V:
        try:
            return read(token.text)
        except Fault as fault:
            self._fail(str(fault), token)

    def _fail(self, message: str, token: Token) -> NoReturn:
        raise GoTemplateError(message, token.line)


def _is_empty(nodes: Nodes) -> bool:
    return all(isinstance(node, Text) and not node.text.strip() for node in nodes)
