"""Prompts made by templates in Go's language, by the rules that Ollama has for them.

A template that mentions `.Messages` gets the whole conversation at once. Older ones know one turn,
`.System`, `.Prompt` and `.Response`: they are executed for each turn, and for the last one only up
to where the response is written. One that mentions neither gets the response at its end.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from runner.chat.budget import Budget
from runner.chat.go_data import go_messages, go_tools
from runner.chat.go_template.errors import Fault, GoTemplateError
from runner.chat.go_template.template import GoTemplate
from runner.chat.go_template.values import Value
from runner.chat.turns import joined_neighbours
from runner.chat.types import Message, Tool
from runner.errors import ModelInvalid, Unsupported

_CACHED_TEMPLATES = 16
_RESPONSE = "Response"


class GoPrompt:
    """A model's template. Reading and executing take milliseconds and may be done in any thread."""

    def __init__(self, source: str) -> None:
        """Raises ModelInvalid when `source` is not a template."""
        self._parts = _read(source)

    def render(
        self,
        messages: tuple[Message, ...],
        *,
        thinking: bool | None,
        effort: str | None = None,
        tools: tuple[Tool, ...] = (),
        asks_for_answer: bool = True,
    ) -> str:
        """The prompt that makes the model answer `messages`. Raises ModelInvalid when the template fails.

        These templates see for themselves whether the last turn is the model's; `asks_for_answer` says nothing new.
        """
        budget = Budget(_size(messages))
        try:
            if not self._parts.takes_messages:
                return self._render_turns(joined_neighbours(messages), _thinking(thinking, effort), budget)
            data = {
                "System": "\n\n".join(message.content for message in messages if message.role == "system"),
                "Messages": go_messages(joined_neighbours(messages)),
                "Tools": go_tools(tools),
                _RESPONSE: "",
                **_thinking(thinking, effort),
            }
            return self._parts.whole.execute(data, budget)
        except (GoTemplateError, Fault) as error:
            raise ModelInvalid(f"The chat template fails: {error}.") from error

    def render_insertion(self, prompt: str, suffix: str, *, thinking: bool | None) -> str:
        """The prompt that makes the model write what stands between two texts.

        Raises Unsupported when the template has no place for them, ModelInvalid when it fails.
        """
        if not self._parts.takes_suffix:
            raise Unsupported("The model's template has no place for a suffix, so it does not support insert.")
        data = {"Prompt": prompt, "Suffix": suffix, _RESPONSE: "", **_thinking(thinking)}
        try:
            return self._parts.whole.execute(data, Budget(len(prompt) + len(suffix)))
        except GoTemplateError as error:
            raise ModelInvalid(f"The chat template fails: {error}.") from error

    def _render_turns(self, messages: tuple[Message, ...], thinking: dict[str, Value], budget: Budget) -> str:
        rendered = []
        turn = {"System": "", "Prompt": "", _RESPONSE: ""}
        for message in messages:
            field = {"system": "System", "user": "Prompt", "assistant": _RESPONSE}.get(message.role)
            if field is None:
                continue
            is_full = turn[_RESPONSE] or (field == "System" and turn["Prompt"])
            if is_full and field != _RESPONSE:
                rendered.append(self._parts.whole.execute({**turn, **thinking}, budget))
                turn = dict.fromkeys(turn, "")
            turn[field] = message.content
        rendered.append(self._parts.up_to_response.execute({**turn, **thinking}, budget))
        return "".join(rendered)


@dataclass(frozen=True, slots=True)
class _Parts:
    """What is made of a source once."""

    whole: GoTemplate
    up_to_response: GoTemplate
    takes_messages: bool
    takes_suffix: bool


@lru_cache(maxsize=_CACHED_TEMPLATES)
def _read(source: str) -> _Parts:
    try:
        template = GoTemplate(source)
    except GoTemplateError as error:
        message = f"The chat template is not valid in Go's template language: {error}."
        raise ModelInvalid(message, line=error.line) from error
    names = template.field_names
    takes_messages = "messages" in names
    if not takes_messages and _RESPONSE.lower() not in names:
        template = template.with_field(_RESPONSE)
    return _Parts(template, template.cut_at_field(_RESPONSE), takes_messages, "suffix" in names)


def _thinking(thinking: bool | None, effort: str | None = None) -> dict[str, Value]:
    level = (effort or "medium") if thinking else ""
    return {"Think": bool(thinking), "ThinkLevel": level, "IsThinkSet": thinking is not None}


def _size(messages: tuple[Message, ...]) -> int:
    return sum(len(message.content) + len(message.thinking or "") for message in messages)
