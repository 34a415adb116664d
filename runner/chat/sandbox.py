"""The sandbox in which strangers' templates run: no way out, no endless loop, no text without bound."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

from jinja2 import Environment, Template, nodes, pass_environment
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.filters import do_indent, make_attrgetter
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from runner.chat.budget import Budget

_PADDING_METHODS = frozenset({"ljust", "rjust", "center", "zfill", "expandtabs"})
_HUGE_WIDTH = re.compile(r"[0-9]{6}")


class TemplateRefusal(Exception):
    """What a template says through `raise_exception`: it does not take this conversation."""


def compile_template(source: str) -> Template:
    """A template of the sandbox; raises what jinja raises. Render it inside `rendering_within`."""
    environment = _environment()
    return environment.from_string(_Rewriter(environment).visit(environment.parse(source)))


@contextmanager
def rendering_within(budget: Budget) -> Iterator[None]:
    """What is rendered inside, on this thread, uses `budget`."""
    token = _budget.set(budget)
    try:
        yield
    finally:
        _budget.reset(token)


_budget: ContextVar[Budget] = ContextVar("budget")


class _GenerationBlock(Extension):
    """`{% generation %}…{% endgeneration %}`, which marks answers for training: rendered as if not there."""

    tags = {"generation"}  # noqa: RUF012 - jinja's own way of declaring tags

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Rewriter(NodeTransformer):
    """Sends through the sandbox what would pass it by: the turns of loops, and `~`."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    def visit_For(self, loop: nodes.For) -> nodes.Node:
        self.generic_visit(loop)
        loop.body.insert(0, nodes.ExprStmt(self._call("tick", [], loop.lineno), lineno=loop.lineno))
        return loop

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return self._call("join_texts", node.nodes, node.lineno)

    def _call(self, method: str, arguments: list[nodes.Expr], line: int) -> nodes.Call:
        call = nodes.Call(nodes.EnvironmentAttribute(method), arguments, [], None, None)
        call.set_environment(self._environment)
        call.set_lineno(line, override=True)
        return call


class _Sandbox(ImmutableSandboxedEnvironment):
    """Refuses attribute tricks and changes to its arguments, and counts what a rendering uses."""

    intercepted_binops = frozenset({"*", "**", "+", "%"})

    @staticmethod
    def tick() -> None:
        """Called in every turn of every loop; `call` is what looks at the time."""

    @staticmethod
    def join_texts(*values: Any) -> str:
        """What `~` does."""
        texts = [str(value) for value in values]
        _budget.get().spend(sum(map(len, texts)))
        return "".join(texts)

    def call(self, context: Any, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        _budget.get().tick()
        method = getattr(function, "__wrapped__", function)  # jinja wraps `format`
        owner = getattr(method, "__self__", None)
        if isinstance(owner, str):
            _spend_method(owner, method.__name__, args, kwargs)
        return super().call(context, function, *args, **kwargs)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        budget = _budget.get()
        match operator:
            case "**":
                raise SecurityError("powers are not allowed in a chat template")
            case "*":
                for text, times in ((left, right), (right, left)):
                    if hasattr(text, "__len__") and isinstance(times, int):
                        budget.spend(len(text) * max(times, 0))
            case "+" if hasattr(left, "__len__") and hasattr(right, "__len__"):
                budget.spend(len(left) + len(right))
            case "%" if isinstance(left, str):
                _spend_formatting(left, "%", right if isinstance(right, tuple) else (right,))
        return super().call_binop(context, operator, left, right)

    @staticmethod
    def concat(parts: Iterable[str]) -> str:
        """Jinja's way of joining what statements and macros write."""
        budget = _budget.get()
        collected = []
        for part in parts:
            budget.spend(len(part))
            collected.append(part)
        return "".join(collected)


@lru_cache(maxsize=1)
def _environment() -> Environment:
    # The settings and extra functions are those that published templates are written against
    # (transformers, `apply_chat_template`).
    environment = _Sandbox(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _GenerationBlock], autoescape=False
    )
    environment.filters.update(tojson=_to_json, join=_join, replace=_replace, format=_format, indent=_indent)
    del environment.filters["center"]
    del environment.globals["lipsum"]
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


def _refuse(reason: object) -> NoReturn:
    raise TemplateRefusal(str(reason))


def _to_json(value: Any, indent: int | None = None, ensure_ascii: bool = False) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


@pass_environment
def _join(environment: Environment, value: Iterable[Any], d: str = "", attribute: str | int | None = None) -> str:
    if attribute is not None:
        value = map(make_attrgetter(environment, attribute), value)
    texts = [str(one) for one in value]
    _budget.get().spend(len(d) * len(texts) + sum(map(len, texts)))
    return str(d).join(texts)


def _replace(text: object, old: str, new: str, count: int = -1) -> str:
    whole = str(text)
    _spend_method(whole, "replace", (old, new), {})
    return whole.replace(old, new, count)


def _format(text: object, *args: Any, **kwargs: Any) -> str:
    template = str(text)
    _spend_formatting(template, "%", (*args, *kwargs.values()))
    return template % (kwargs or args)


def _indent(text: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    _budget.get().spend(len(text) + (len(width) if isinstance(width, str) else width) * (text.count("\n") + 1))
    return do_indent(text, width, first, blank)


def _spend_method(text: str, method: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Count what a method of a text will make of it, before it does."""
    made = len(text)
    if method in _PADDING_METHODS:
        made = max([made, *(one for one in args if isinstance(one, int))])
        made *= max(1, text.count("\t")) if method == "expandtabs" else 1
    elif method == "replace" and len(args) >= 2 and isinstance(args[0], str) and isinstance(args[1], str):
        made += text.count(args[0]) * len(args[1])
    elif method == "join" and args and hasattr(args[0], "__len__"):
        made += len(text) * len(args[0]) + sum(len(one) for one in args[0] if isinstance(one, str))
    elif method in ("format", "format_map"):
        _spend_formatting(text, "{", (*args, *kwargs.values()))
    _budget.get().spend(made)


def _spend_formatting(text: str, mark: str, values: Iterable[Any]) -> None:
    """Count the most that a format can make: each of its fields as long as the longest value."""
    if _HUGE_WIDTH.search(text):
        raise SecurityError("a chat template may not ask for so wide a field")
    longest = 64  # numbers
    for value in values:
        if isinstance(value, str):
            longest = max(longest, len(value))
        elif isinstance(value, int):
            longest = max(longest, value)  # it may be the width of another field
    _budget.get().spend(len(text) + text.count(mark) * longest)
