"""Images and sounds in request bodies: from base64 and data URLs to media that stand in a text. Pure functions."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass

from runner.chat.media import Media, MediaKind, check_size, sounds_like_audio
from runner.errors import InvalidRequest, Unsupported

_DATA_URL = re.compile(r"data:(?:image/(?:jpeg|jpg|png|webp|gif))?;base64,", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class MediaPart:
    """An image or a sound among the parts of a message."""

    kind: MediaKind
    data: bytes
    field: str


def read_base64(text: str, field: str, kind: MediaKind | None = None) -> MediaPart:
    """A file in base64; without a `kind` its first bytes tell that. Raises InvalidRequest or BodyTooLarge."""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        raise InvalidRequest(f"{field} is not valid base64.", field) from None
    if not data:
        raise InvalidRequest(f"{field} is empty.", field)
    if kind is None:
        kind = MediaKind.AUDIO if sounds_like_audio(data) else MediaKind.IMAGE
    check_size(kind, data, field)
    return MediaPart(kind, data, field)


def read_image_url(url: str, field: str) -> MediaPart:
    """An image in a data URL. Others are refused: nothing is fetched for a client."""
    if re.match(r"https?:", url, re.IGNORECASE):
        raise Unsupported("image URLs are not currently supported, please use base64 encoded data instead", field=field)
    head = _DATA_URL.match(url)
    if head is None:
        raise InvalidRequest("invalid image input", field)
    return read_base64(url[head.end() :], field, MediaKind.IMAGE)


def join_parts(parts: Sequence[str | MediaPart]) -> tuple[str, tuple[Media, ...]]:
    """A message's text, its parts on lines of their own, and its media, with nothing between them and the text."""
    text, media = "", []
    follows_text = False
    for part in parts:
        if isinstance(part, str):
            text += f"\n{part}" if follows_text else part
            follows_text = True
        else:
            media.append(Media(part.kind, part.data, len(text), part.field))
            follows_text = False
    return text, tuple(media)


def at_marks(text: str, files: Sequence[str], path: str, mark: str) -> tuple[str, tuple[Media, ...]]:
    """A text and the files in base64 that belong to it: each at the next mark, which goes, the others in front of all.

    `path` is that of the files' array. Without files a mark is text like any other. Raises as `read_base64`.
    """
    parts = [read_base64(file, f"{path}[{index}]") for index, file in enumerate(files)]
    between = text.split(mark, len(parts))
    placed = parts[: len(between) - 1]
    media = [Media(part.kind, part.data, 0, part.field) for part in parts[len(placed) :]]
    at = 0
    for part, before in zip(placed, between, strict=False):
        at += len(before)
        media.append(Media(part.kind, part.data, at, part.field))
    return "".join(between), tuple(media)
