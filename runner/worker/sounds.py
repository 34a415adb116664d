"""Sound files, measured before the engine decodes them: a small file can be hours long."""

from __future__ import annotations

from runner.chat.media import Media
from runner.engine import Sound
from runner.errors import InvalidRequest

MAX_SECONDS = 1800
"""Of one sound."""

_FRAME_BITRATES = {
    # By version 1 and the later ones: kilobits a second, by the index in a frame's header.
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
"""Samples a second, by the version's bits."""
_LAYER_3 = 1
_WAV_ENCODINGS = (1, 3, 0xFFFE)
"""Whole numbers, floating point, and those that say elsewhere which of the two; others may unpack to anything."""


def read_sound(media: Media) -> Sound:
    """A sound that the engine may decode. Raises InvalidRequest."""
    data = media.data
    is_wav = data[:4] == b"RIFF" and data[8:12] == b"WAVE"
    seconds = wav_seconds(data) if is_wav else mp3_seconds(data)
    if seconds is None or seconds <= 0:
        raise InvalidRequest(f"{media.field} is not a sound that can be read; WAV and MP3 can.", media.field)
    if seconds > MAX_SECONDS:
        raise InvalidRequest(f"{media.field} is {seconds:.0f} seconds long; {MAX_SECONDS} are allowed.", media.field)
    return Sound(data)


def wav_seconds(data: bytes) -> float | None:
    """How long a WAV file lasts by the bytes that are there; None when it is broken or says more than it has."""
    place, bytes_per_second = 12, 0
    while place + 8 <= len(data):
        name, size = data[place : place + 4], int.from_bytes(data[place + 4 : place + 8], "little")
        body = place + 8
        if body + size > len(data):
            return None
        if name == b"fmt " and size >= 16:
            if int.from_bytes(data[body : body + 2], "little") not in _WAV_ENCODINGS:
                return None
            channels = int.from_bytes(data[body + 2 : body + 4], "little")
            rate = int.from_bytes(data[body + 4 : body + 8], "little")
            bits = int.from_bytes(data[body + 14 : body + 16], "little")
            if not (1 <= channels <= 8 and 4000 <= rate <= 192_000 and bits in (8, 16, 24, 32, 64)):
                return None
            bytes_per_second = channels * rate * bits // 8
        if name == b"data":
            return size / bytes_per_second if bytes_per_second else None
        place = body + size + size % 2
    return None


def mp3_seconds(data: bytes) -> float | None:
    """How long the frames of an MP3 file last together; None when there are none."""
    place, seconds = _after_tags(data), 0.0
    if data[place : place + 4] == b"fLaC":
        return None
    while (place := data.find(b"\xff", place)) >= 0 and seconds <= MAX_SECONDS:
        frame = _frame(data[place : place + 4])
        if frame is None:
            place += 1
        else:
            size, lasts = frame
            seconds += lasts
            place += size
    return seconds or None


def _after_tags(data: bytes) -> int:
    place = 0
    while data[place : place + 3] == b"ID3" and place + 10 <= len(data):
        size = 0
        for byte in data[place + 6 : place + 10]:
            size = size << 7 | byte & 0x7F
        place += 10 + size
    return place


def _frame(header: bytes) -> tuple[int, float] | None:
    """Bytes and seconds of the frame that begins so; None for what is no frame of layer 3."""
    if len(header) < 4 or header[1] & 0xE0 != 0xE0:
        return None
    version, layer = header[1] >> 3 & 3, header[1] >> 1 & 3
    bitrate_index, rate_index, padding = header[2] >> 4, header[2] >> 2 & 3, header[2] >> 1 & 1
    if version == 1 or layer != _LAYER_3 or bitrate_index in (0, 15) or rate_index == 3:
        return None
    is_first = version == 3
    rate = _RATES[version][rate_index]
    samples = 1152 if is_first else 576
    size = samples // 8 * _FRAME_BITRATES[is_first][bitrate_index] * 1000 // rate + padding
    return size, samples / rate
