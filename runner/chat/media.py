"""Images and sounds that stand in a message: what they are, how many and how large they may be."""

from __future__ import annotations

import enum

import msgspec

from runner.errors import BodyTooLarge

MAX_MEDIA = 64
"""Images and sounds of one request together."""
MAX_IMAGE_BYTES = 32 * 1024 * 1024
MAX_SOUND_BYTES = 32 * 1024 * 1024


class MediaKind(enum.StrEnum):
    IMAGE = "image"
    AUDIO = "audio"


class Media(msgspec.Struct, frozen=True):
    """The bytes of a file, as the client sent them."""

    kind: MediaKind
    data: bytes
    at: int
    """It stands before the character of its message that has this number; those of one message stand in order."""
    field: str
    """Where it stands in the client's request, for errors."""


def check_size(kind: MediaKind, data: bytes, field: str) -> None:
    """Raises BodyTooLarge."""
    limit = MAX_IMAGE_BYTES if kind is MediaKind.IMAGE else MAX_SOUND_BYTES
    if len(data) > limit:
        raise BodyTooLarge(f"{field} has {len(data)} bytes; {limit} are allowed.", field=field, limit=limit)


def sounds_like_audio(data: bytes) -> bool:
    """Whether a file begins as WAV, MP3 and FLAC files do; for places where a client may put both kinds."""
    is_wav = data[:4] == b"RIFF" and data[8:12] == b"WAVE"
    is_frame = len(data) > 1 and data[0] == 0xFF and data[1] & 0xE6 in (0xE2, 0xE4, 0xE6)
    return is_wav or is_frame or data[:3] == b"ID3" or data[:4] == b"fLaC"
