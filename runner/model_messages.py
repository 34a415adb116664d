"""What a model brings to a prompt: its template, its system text, and the messages it begins with."""

from __future__ import annotations

import re

import msgspec

from registry.stored_model import StoredModel
from runner.chat.types import Message
from runner.errors import Unsupported

_THOUGHTS = re.compile(r"\A\s*<think>.*?</think>\s*", re.DOTALL)


def own_template(model: StoredModel) -> tuple[str | None, tuple[str, ...]]:
    """What the model brings in place of the template in its file, and what of the model is not honoured.

    A TEMPLATE, in Jinja or in Go's language, always goes before the one in the file. Only where a
    model names a renderer, which makes its prompts elsewhere, its TEMPLATE is a mere stand-in.
    """
    config = model.config
    unused = ("PARSER",) if config.parser not in ("", "passthrough") else ()
    if config.renderer:
        if not model.metadata().chat_template:
            raise Unsupported(
                f"{model.name.short} leaves its prompts to the renderer {config.renderer!a}, which is not built in, "
                "and has no chat template; send raw: true, or create a model from it with a TEMPLATE."
            )
        return None, ("RENDERER", *unused)
    return (model.template if model.template and model.template.strip() else None), unused


def conversation(model: StoredModel, messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The messages with the model's own in front; a system message always stays the first."""
    if messages and messages[0].role == "system":
        opening, rest = messages[:1], messages[1:]
    else:
        opening, rest = system_message(model.system), messages
    return (*opening, *own_messages(model), *_without_earlier_thoughts(model, rest))


def _without_earlier_thoughts(model: StoredModel, messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Models that write their thoughts into the answer are not to read them again."""
    if model.config.model_family != "qwen3" and model.name.model.lower() != "deepseek-r1":
        return messages
    last = max((index for index, message in enumerate(messages) if message.role == "user"), default=0)
    return tuple(
        msgspec.structs.replace(message, content=_THOUGHTS.sub("", message.content, count=1))
        if message.role == "assistant" and index < last
        else message
        for index, message in enumerate(messages)
    )


def system_message(text: str | None) -> tuple[Message, ...]:
    """A system text as the message that it becomes; none for no text."""
    return (Message("system", text),) if text else ()


def own_messages(model: StoredModel) -> tuple[Message, ...]:
    """The MESSAGEs of a model."""
    return tuple(Message(role, content) for role, content in model.messages)
