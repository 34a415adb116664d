"""Images and sounds on their way into a prompt: marked in its text, read, and given places among its tokens.

Text is rendered with a marker in the place of each medium, tokenized by the engine, and what comes
back are tokens and pieces. A piece stands in a sequence's tokens as negative numbers made from the
medium's content, one for each place: so whatever compares tokens, as the prefix cache does, finds
equal images equal and different ones different.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from runner.chat.media import MAX_MEDIA, Media, MediaKind
from runner.chat.types import ChatPrompt, ChatRequest, Message, TextPrompt
from runner.engine import Engine, MediaInput, MediaPiece, MediaVectors
from runner.errors import InvalidRequest, ModelInvalid, RequestError, Unsupported
from runner.worker.pictures import read_picture
from runner.worker.sounds import read_sound
from runner.worker.stand_ins import stand_ins

_SHOWN = {MediaKind.IMAGE: "[image]", MediaKind.AUDIO: "[audio]"}


@dataclass(slots=True, eq=False)
class MediaSpan:
    """Where a piece stands in a sequence, and what the engine has made of it so far."""

    start: int
    piece: MediaPiece
    vectors: MediaVectors | None = None

    @property
    def end(self) -> int:
        return self.start + self.piece.count


@dataclass(frozen=True, slots=True)
class MediaTokens:
    """A text with media as tokens; `shown` is the text as people may see it."""

    tokens: list[int]
    spans: tuple[MediaSpan, ...]
    shown: str


class MediaText:
    """The media of one request, read once however often its prompt is made."""

    def __init__(self, request: ChatRequest, engine: Engine) -> None:
        """Reads nothing yet. Raises RequestError for media that the model or the request cannot have."""
        self._engine = engine
        self._media = _media_of(request)
        self._numbers = {id(medium): number for number, medium in enumerate(self._media)}
        self._inputs: dict[int, MediaInput] = {}
        if self._media:
            _check(self._media, request, engine)

    def __bool__(self) -> bool:
        return bool(self._media)

    def mark(self, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        """The messages with markers in their contents in place of the media; any of those of the request."""
        return tuple(
            msgspec.structs.replace(message, content=self.mark_text(message.content, message.media), media=())
            if message.media
            else message
            for message in messages
        )

    def mark_text(self, text: str, media: Sequence[Media]) -> str:
        parts, place = [], 0
        for medium in media:
            at = min(max(medium.at, place), len(text))
            parts += [text[place:at], f"{self._engine.media_marker}#{self._numbers[id(medium)]};"]
            place = at
        return "".join((*parts, text[place:]))

    def tokenize(self, text: str, wanted: Sequence[Media], *, start: int, add_special: bool) -> MediaTokens:
        """Tokens of a text that was made of marked ones, with `start` tokens before it.

        Each of `wanted` has to be there. Decodes, so it takes as long as the largest image does.
        """
        marker = self._engine.media_marker
        pattern = re.compile(re.escape(marker) + r"#(\d+);")
        order = [int(number) for number in pattern.findall(text)]
        for medium in wanted:
            if self._numbers[id(medium)] not in order:
                raise InvalidRequest(f"The model's template leaves no place for {medium.field}.", medium.field)
        inputs = [self._read(number) for number in order]
        try:
            pieces = self._engine.tokenize_media(pattern.sub(lambda _: marker, text), inputs, add_special=add_special)
        except RequestError as error:
            field = self._media[order[0]].field if len(order) == 1 else "messages"
            error.facts = {"field": field, **error.facts}
            raise
        tokens, spans = place_pieces(pieces, start, [hashlib.sha256(self._media[one].data).digest() for one in order])
        return MediaTokens(tokens, spans, pattern.sub(lambda match: _SHOWN[self._media[int(match[1])].kind], text))

    def _read(self, number: int) -> MediaInput:
        if number not in self._inputs:
            medium = self._media[number]
            self._inputs[number] = read_picture(medium) if medium.kind is MediaKind.IMAGE else read_sound(medium)
        return self._inputs[number]


def place_pieces(
    pieces: Sequence[list[int] | MediaPiece], start: int, contents: Sequence[bytes]
) -> tuple[list[int], tuple[MediaSpan, ...]]:
    """Tokens and pieces in a row that begins at `start`; `contents` tells the media apart, in their order."""
    tokens: list[int] = []
    spans = []
    pieces_of = [0] * len(contents)
    for piece in pieces:
        if isinstance(piece, list):
            tokens += piece
            continue
        spans.append(MediaSpan(start + len(tokens), piece))
        key = contents[piece.source] + pieces_of[piece.source].to_bytes(4, "little")
        pieces_of[piece.source] += 1
        tokens += stand_ins(key, piece.count, is_grid=piece.is_grid)
    return tokens, tuple(spans)


def _media_of(request: ChatRequest) -> tuple[Media, ...]:
    match request.prompt:
        case ChatPrompt(messages):
            return tuple(medium for message in messages for medium in message.media)
        case TextPrompt():
            return request.prompt.media
        case _:
            return ()


def _check(media: Sequence[Media], request: ChatRequest, engine: Engine) -> None:
    first = media[0]
    if engine.info.media_failure:
        raise ModelInvalid(engine.info.media_failure)
    for medium in media:
        if medium.kind.value not in engine.info.media:
            what = "vision" if medium.kind is MediaKind.IMAGE else "audio"
            raise Unsupported(f"This model does not support {what}: {medium.field} cannot be used.", field=medium.field)
    if len(media) > MAX_MEDIA:
        raise InvalidRequest(f"{len(media)} images and sounds; {MAX_MEDIA} are allowed.", media[MAX_MEDIA].field)
    if request.deterministic:
        raise Unsupported("A deterministic answer cannot be about images or sounds.", field=first.field)
    if request.limits.shift:
        raise Unsupported("A window with images or sounds cannot be shifted; leave out shift.", field="shift")
