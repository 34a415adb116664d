"""Answers whose beginning is given: the prompt then ends inside the model's own turn.

Where a turn's text ends in a rendered conversation only its template knows. So the given words are
rendered with a mark behind them, and all that comes from the mark on is cut off: the end of the
turn, and whatever would ask for the next one.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import msgspec

from runner.chat.types import Message
from runner.errors import Unsupported

_MARK = "PunaGoesOnHere"
"""Letters alone: templates may write a text as JSON, or trim it."""


def free_mark(messages: Sequence[Message]) -> str:
    """A mark that stands nowhere in the conversation."""
    texts = [text for message in messages for text in (message.content, message.thinking or "")]
    texts += [call.arguments for message in messages for call in message.tool_calls]
    marks = (f"{_MARK}{number}X" for number in itertools.count())
    return next(mark for mark in marks if not any(mark in text for text in texts))


def marked(messages: tuple[Message, ...], mark: str) -> tuple[Message, ...]:
    """The conversation with the mark at the end of its last message."""
    last = messages[-1]
    return (*messages[:-1], msgspec.structs.replace(last, content=last.content + mark))


def cut_at(mark: str, prompt: str) -> str:
    """The prompt up to the mark. Raises Unsupported when the template did not write it, or not once."""
    before, found, after = prompt.partition(mark)
    if not found or mark in after:
        raise Unsupported(
            "The model's chat template has no place for an answer that is begun; "
            "end the conversation with a message of the user's.",
            field="messages",
        )
    return before
