"""Render a model's chat template: the one place that builds a Jinja environment."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

from jinja2 import Environment, Template, TemplateError, TemplateSyntaxError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from runner.chat.types import Message
from runner.errors import InvalidRequest, ModelInvalid

MAX_REPEATED_CHARACTERS = 1_000_000
"""Longest text a template may make by multiplication."""
_CACHED_TEMPLATES = 16


class TemplateRefusal(Exception):
    """What a template says through `raise_exception`: it does not take this conversation."""


class ChatTemplate:
    """A compiled template. Compiling and rendering take milliseconds and may be done in any thread."""

    def __init__(self, source: str, special_texts: Mapping[str, str]) -> None:
        """Raises ModelInvalid when `source` is not a template."""
        self._template = _compile(source)
        self._special_texts = special_texts

    def render(self, messages: tuple[Message, ...], *, thinking: bool | None = None) -> str:
        """The prompt that makes the model answer `messages`.

        Raises InvalidRequest when the template refuses the conversation, ModelInvalid when the
        template itself fails.
        """
        variables: dict[str, Any] = {
            **self._special_texts,
            "messages": [{"role": message.role, "content": message.content} for message in messages],
            "add_generation_prompt": True,
            "tools": None,
            "documents": None,
        }
        if thinking is not None:
            variables["enable_thinking"] = thinking
        try:
            return self._template.render(variables)
        except TemplateRefusal as refusal:
            raise InvalidRequest(
                f"The model's chat template refuses this conversation: {refusal}", field="messages"
            ) from refusal
        except Exception as error:  # a template is a stranger's program and may raise anything
            raise ModelInvalid(f"The chat template fails: {_told(error)}") from error


class _GenerationBlock(Extension):
    """`{% generation %}…{% endgeneration %}`, which marks answers for training: rendered as if not there."""

    tags = {"generation"}  # noqa: RUF012 - jinja's own way of declaring tags

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Sandbox(ImmutableSandboxedEnvironment):
    """Refuses attribute tricks and changes to its arguments, and text grown by multiplication."""

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**":
            raise SecurityError("powers are not allowed in a chat template")
        for text, times in ((left, right), (right, left)):
            if hasattr(text, "__len__") and isinstance(times, int) and len(text) * times > MAX_REPEATED_CHARACTERS:
                raise SecurityError("a chat template may not repeat a text that often")
        return super().call_binop(context, operator, left, right)


@lru_cache(maxsize=_CACHED_TEMPLATES)
def _compile(source: str) -> Template:
    try:
        return _environment().from_string(source)
    except TemplateSyntaxError as error:
        raise ModelInvalid(f"The chat template is not valid Jinja: line {error.lineno}: {error.message}.") from error
    except (TemplateError, RecursionError) as error:
        raise ModelInvalid(f"The chat template cannot be compiled: {_told(error)}") from error


@lru_cache(maxsize=1)
def _environment() -> Environment:
    # The settings and extra functions are those that published templates are written against
    # (transformers, `apply_chat_template`).
    environment = _Sandbox(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _GenerationBlock], autoescape=False
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


def _refuse(reason: object) -> NoReturn:
    raise TemplateRefusal(str(reason))


def _to_json(value: Any, indent: int | None = None, ensure_ascii: bool = False) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


def _told(error: BaseException) -> str:
    text = str(error).strip().rstrip(".")
    return f"{text[:200]}." if text else f"{type(error).__name__}."
