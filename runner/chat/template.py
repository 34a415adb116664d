"""Render a model's chat template to the prompt that it makes of a conversation."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from jinja2 import Template, TemplateError, TemplateSyntaxError

from runner.chat.sandbox import Budget, TemplateRefusal, compile_template, rendering_within
from runner.chat.types import Message
from runner.errors import InvalidRequest, ModelInvalid

_CACHED_TEMPLATES = 16


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
            with rendering_within(Budget(sum(len(message.content) for message in messages))):
                return self._template.render(variables)
        except TemplateRefusal as refusal:
            raise InvalidRequest(
                f"The model's chat template refuses this conversation: {refusal}", field="messages"
            ) from refusal
        except Exception as error:  # a template is a stranger's program and may raise anything
            raise ModelInvalid(f"The chat template fails: {_told(error)}") from error


@lru_cache(maxsize=_CACHED_TEMPLATES)
def _compile(source: str) -> Template:
    try:
        return compile_template(source)
    except TemplateSyntaxError as error:
        raise ModelInvalid(f"The chat template is not valid Jinja: line {error.lineno}: {error.message}.") from error
    except (TemplateError, RecursionError) as error:
        raise ModelInvalid(f"The chat template cannot be compiled: {_told(error)}") from error


def _told(error: BaseException) -> str:
    text = str(error).strip().rstrip(".")
    return f"{text[:200]}." if text else f"{type(error).__name__}."
