"""From a request to the tokens of its prompt."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from runner.chat.media import Media
from runner.chat.output_format import OutputFormat, output_format
from runner.chat.plain_tools import without_tools
from runner.chat.template import ChatTemplate
from runner.chat.types import (
    ChatPrompt,
    ChatRequest,
    InsertPrompt,
    Message,
    TextPrompt,
    TokenPrompt,
    Truncation,
    usable_tools,
)
from runner.engine import Engine
from runner.errors import ContextLengthExceeded, InvalidRequest, Unsupported
from runner.worker.media import MediaSpan, MediaText

CHARACTERS_NEVER_REFUSED_UNREAD = 16
"""For each token of the window; a text up to this long is tokenized and its tokens counted."""
ROOM_FOR_ANSWER = 4
"""When a prompt is shortened, one part in so many of the window is kept free for the answer."""


@dataclass(frozen=True, slots=True)
class PreparedPrompt:
    """Tokens that fit into `window`, with room for at least one more; it may have to grow for them."""

    tokens: list[int]
    window: int
    text: str
    """What the tokens were made of, without the context of an earlier answer."""
    truncated: Truncation | None = None
    output: OutputFormat | None = None
    """How a conversation's answer is written."""
    media: tuple[MediaSpan, ...] = ()
    """Places among the tokens that images and sounds fill."""


def prepare_prompt(request: ChatRequest, engine: Engine, *, room: int | None = None) -> PreparedPrompt:
    """Render, tokenize and fit a prompt; may be called from any thread and takes as long as tokenizing does.

    `room` is the window as it is, when it will not grow for this prompt; without, it is taken to grow.
    Raises RequestError when the prompt cannot be made or does not fit, ModelInvalid when the
    model's chat template fails.
    """
    info = engine.info
    reach = min(request.limits.num_ctx or info.reach, info.reach)
    window = reach if room is None else min(reach, room)
    if request.limits.shift and not info.can_shift:
        raise Unsupported('This model\'s cache cannot be shifted; leave out "shift".', field="shift")
    if request.limits.shift and request.deterministic:
        raise Unsupported("A deterministic answer cannot shift its window; leave out one of the two.", field="shift")
    for token in request.context:
        if not 0 <= token < info.vocabulary:
            raise InvalidRequest(
                f"Token {token} is not in this model's vocabulary of {info.vocabulary}.", field="context"
            )
    media = MediaText(request, engine)
    if request.deterministic and request.scores_prompt:
        raise Unsupported("The log-probabilities of a prompt are not told with deterministic.", field="echo")
    match request.prompt:
        case ChatPrompt():
            prepared = _fit_chat(request, request.prompt, engine, window, media)
        case InsertPrompt():
            prepared = _fit_insertion(request, request.prompt, engine, window)
        case TextPrompt(text) if media:
            prepared = _fit_marked_text(request, request.prompt, engine, window, media)
        case TextPrompt(text):
            prepared = _fit_text(request, _tokenize(text, request, engine), text, window)
        case TokenPrompt(tokens):
            prepared = _fit_text(request, list(tokens), _text_of(tokens, engine), window)
    if not prepared.tokens:
        raise InvalidRequest("The prompt is empty.", field="prompt")
    return dataclasses.replace(prepared, window=reach)


def _fit_chat(
    request: ChatRequest, prompt: ChatPrompt, engine: Engine, window: int, media: MediaText
) -> PreparedPrompt:
    source = prompt.template or engine.chat_template
    if source is None:
        raise Unsupported("This model has no chat template, so it does not support chat; use it with a raw prompt.")
    template = ChatTemplate(source, engine.template_tokens, is_from_file=not prompt.template)
    output = output_format(source)
    tools = usable_tools(request)
    render = functools.partial(
        template.render, thinking=prompt.thinking, effort=prompt.effort, continues=prompt.continues
    )

    def make(wanted: tuple[Message, ...]) -> PreparedPrompt:
        messages = media.mark(wanted)
        if prompt.suffix:
            text = template.render_insertion(messages[-1].content, prompt.suffix, thinking=prompt.thinking)
        elif output.knows_tools:
            text = render(messages, tools=tools)
        else:
            text = render(without_tools(messages, tools))
        if media:
            marked = _tokenize_marked(
                text, [one for message in wanted for one in message.media], request, engine, media
            )
            return dataclasses.replace(marked, window=window, output=output)
        tokens = [*request.context, *_tokenize(text, request, engine)]
        return PreparedPrompt(tokens, window, text, output=output)

    prepared = make(prompt.messages)
    original = len(prepared.tokens)
    if original < window:
        return prepared
    if not request.limits.truncate:
        raise ContextLengthExceeded(original, window)
    kept = drop_oldest_turns(prompt.messages, lambda messages: len(make(messages).tokens) <= _goal(request, window))
    shortened = make(kept)
    if len(shortened.tokens) >= window:
        raise ContextLengthExceeded(len(shortened.tokens), window, is_shortened=True)
    truncated = Truncation(original=original, kept=len(shortened.tokens), strategy="drop_oldest_turns")
    return dataclasses.replace(shortened, truncated=truncated)


def _fit_insertion(request: ChatRequest, prompt: InsertPrompt, engine: Engine, window: int) -> PreparedPrompt:
    marks = engine.insert_tokens
    if marks is None:
        raise Unsupported("This model does not support insert: it has no tokens that would mark it.", field="suffix")
    for text in (prompt.text, prompt.suffix):
        _refuse_what_cannot_fit(text, request, engine)
    tokens = [
        *engine.tokenize("", add_special=True, parse_special=False),
        marks.prefix,
        *engine.tokenize(prompt.text, add_special=False, parse_special=False),
        marks.suffix,
        *engine.tokenize(prompt.suffix, add_special=False, parse_special=False),
        marks.middle,
    ]
    if len(tokens) >= window:
        raise ContextLengthExceeded(len(tokens), window)
    return PreparedPrompt(tokens, window, prompt.text)


def _text_of(tokens: tuple[int, ...], engine: Engine) -> str:
    """Raises InvalidRequest for what is no token of the model."""
    for token in tokens:
        if not 0 <= token < engine.info.vocabulary:
            raise InvalidRequest(
                f"Token {token} is not in this model's vocabulary of {engine.info.vocabulary}.", field="prompt"
            )
    return b"".join(map(engine.token_bytes, tokens)).decode("utf-8", "replace")


def _fit_marked_text(
    request: ChatRequest, prompt: TextPrompt, engine: Engine, window: int, media: MediaText
) -> PreparedPrompt:
    text = media.mark_text(prompt.text, prompt.media)
    prepared = dataclasses.replace(_tokenize_marked(text, prompt.media, request, engine, media), window=window)
    if len(prepared.tokens) >= window:
        # An image cannot be cut, and nobody knows what the text before it is about without it.
        raise ContextLengthExceeded(len(prepared.tokens), window)
    return prepared


def _fit_text(request: ChatRequest, made: list[int], text: str, window: int) -> PreparedPrompt:
    tokens = [*request.context, *made]
    if len(tokens) < window:
        return PreparedPrompt(tokens, window, text)
    if not request.limits.truncate:
        raise ContextLengthExceeded(len(tokens), window)
    goal = max(_goal(request, window), 1)
    keep = min(request.limits.num_keep, goal - 1)
    shortened = tokens[:keep] + tokens[len(tokens) - (goal - keep) :]
    truncated = Truncation(original=len(tokens), kept=len(shortened), strategy="drop_middle")
    return PreparedPrompt(shortened, window, text, truncated)


def drop_oldest_turns(
    messages: tuple[Message, ...], fits: Callable[[tuple[Message, ...]], bool]
) -> tuple[Message, ...]:
    """The conversation without its oldest turns, as few of them as `fits` asks for.

    A turn is a user's message with all that answers it, so that what is left begins like a
    conversation. System messages and the last turn always stay, even when that does not fit.
    """
    starts = [index for index, message in enumerate(messages) if message.role == "user"]
    low, high = 0, max(len(starts) - 1, 0)
    while low < high:
        middle = (low + high) // 2
        if fits(_from(messages, starts, middle)):
            high = middle
        else:
            low = middle + 1
    return _from(messages, starts, low)


def _from(messages: tuple[Message, ...], starts: list[int], first: int) -> tuple[Message, ...]:
    begin = starts[first] if first else 0
    return tuple(message for index, message in enumerate(messages) if index >= begin or message.role == "system")


def _refuse_what_cannot_fit(text: str, request: ChatRequest, engine: Engine) -> None:
    """Refuse a text that is too long for any window before tokenizing it, which can take seconds a megabyte."""
    window = engine.info.reach
    if request.limits.truncate or len(text) <= CHARACTERS_NEVER_REFUSED_UNREAD * window:
        return
    fewest = len(text.encode()) // engine.longest_token
    if fewest >= window:
        raise ContextLengthExceeded(fewest, window, at_least=True)


def _goal(request: ChatRequest, window: int) -> int:
    """How long a shortened prompt may be: the window less what the answer wants, within reason."""
    reserve = window // ROOM_FOR_ANSWER
    if request.limits.num_predict >= 0:
        reserve = min(request.limits.num_predict, reserve)
    return window - max(reserve, 1)


def _tokenize_marked(
    text: str, wanted: Sequence[Media], request: ChatRequest, engine: Engine, media: MediaText
) -> PreparedPrompt:
    _refuse_what_cannot_fit(text, request, engine)
    made = media.tokenize(text, wanted, start=len(request.context), add_special=not request.context)
    return PreparedPrompt([*request.context, *made.tokens], 0, made.shown, media=made.spans)


def _tokenize(text: str, request: ChatRequest, engine: Engine) -> list[int]:
    _refuse_what_cannot_fit(text, request, engine)
    # Tokens of an earlier answer already begin with what a prompt begins with.
    return engine.tokenize(text, add_special=not request.context, parse_special=True)
