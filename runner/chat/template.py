"""A model's chat template, in either language: it makes prompts of conversations."""

from __future__ import annotations

from collections.abc import Mapping

from registry.template_language import is_go_template
from runner.chat.begun import cut_at, free_mark, marked
from runner.chat.go_prompt import GoPrompt
from runner.chat.jinja_prompt import JinjaPrompt
from runner.chat.types import Message, Tool
from runner.errors import ModelInvalid, RequestError, Unsupported

MAX_CHECKED_CHARACTERS = 1 << 17
"""Reading a template takes time in proportion to its length; published ones have ten thousand characters."""


class ChatTemplate:
    """A template that was read. Reading and rendering take milliseconds and may be done in any thread."""

    def __init__(self, source: str, special_texts: Mapping[str, str], *, is_from_file: bool = False) -> None:
        """`special_texts` are known to templates in Jinja, which those in model files always are.

        Raises ModelInvalid when `source` is not a template.
        """
        is_go = not is_from_file and is_go_template(source)
        self._prompt = GoPrompt(source) if is_go else JinjaPrompt(source, special_texts)

    def render(
        self,
        messages: tuple[Message, ...],
        *,
        thinking: bool | None = None,
        effort: str | None = None,
        tools: tuple[Tool, ...] = (),
        continues: bool = False,
    ) -> str:
        """The prompt that makes the model answer `messages`, or with `continues` go on with the last of them.

        Raises InvalidRequest when the template refuses the conversation, Unsupported when it cannot
        be gone on with, ModelInvalid when the template itself fails.
        """
        if not continues:
            return self._prompt.render(messages, thinking=thinking, effort=effort, tools=tools)
        mark = free_mark(messages)
        prompt = self._prompt.render(
            marked(messages, mark), thinking=thinking, effort=effort, tools=tools, asks_for_answer=False
        )
        return cut_at(mark, prompt)

    def render_insertion(self, prompt: str, suffix: str, *, thinking: bool | None = None) -> str:
        """The prompt that makes the model write what stands between two texts.

        Raises Unsupported when the template has no place for them, ModelInvalid when it fails.
        """
        if isinstance(self._prompt, JinjaPrompt):
            raise Unsupported("The model's template has no place for a suffix, so it does not support insert.")
        return self._prompt.render_insertion(prompt, suffix, thinking=thinking)


def check_template(source: str) -> None:
    """Raises RequestError, with the line, when a text that somebody sends is no template in its language."""
    if len(source) > MAX_CHECKED_CHARACTERS:
        raise RequestError(f"template error: it has more than {MAX_CHECKED_CHARACTERS} characters.", field="template")
    try:
        ChatTemplate(source, {})
    except ModelInvalid as error:
        raise RequestError(f"template error: {error.message}", **{**error.facts, "field": "template"}) from error
