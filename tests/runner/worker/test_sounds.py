"""How long sound files are, known before anything decodes them."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.chat.media import Media, MediaKind, sounds_like_audio
from runner.errors import InvalidRequest
from runner.worker.sounds import MAX_SECONDS, mp3_seconds, read_sound, wav_seconds
from tests.pictures import picture, tone

FRAME = b"\xff\xfb\x90\x00" + bytes(413)
"""Of an MP3 file: 128 kilobits and 44100 samples a second, 1152 samples in 417 bytes."""
SLOWEST = b"\xff\xe3\x18\x00" + bytes(68)
"""8 kilobits and 8000 samples a second: 576 samples in 72 bytes."""


def read(data: bytes) -> bytes:
    return read_sound(Media(MediaKind.AUDIO, data, 0, "here")).data


def test_wav_and_mp3_files_pass_as_they_are() -> None:
    sound = tone(seconds=0.5)
    assert read(sound) == sound
    assert wav_seconds(sound) == pytest.approx(0.5)
    assert mp3_seconds(FRAME * 100) == pytest.approx(100 * 1152 / 44100)
    tagged = b"ID3\x04\x00\x00\x00\x00\x01\x00" + bytes(128) + FRAME * 3
    assert mp3_seconds(tagged) == pytest.approx(3 * 1152 / 44100)
    assert read(tagged) == tagged


def test_a_file_that_says_more_than_it_holds_is_refused() -> None:
    sound = bytearray(tone())
    sound[40:44] = struct.pack("<I", 2**32 - 1)
    with pytest.raises(InvalidRequest, match="is not a sound that can be read"):
        read(bytes(sound))


@pytest.mark.parametrize("encoding", [2, 17, 85])
def test_packed_sounds_in_wav_files_are_refused(encoding: int) -> None:
    sound = bytearray(tone())
    sound[20:22] = struct.pack("<H", encoding)
    with pytest.raises(InvalidRequest):
        read(bytes(sound))


def test_hours_in_a_small_file_are_refused() -> None:
    frames = int(MAX_SECONDS / (576 / 8000)) + 10
    with pytest.raises(InvalidRequest, match=f"{MAX_SECONDS} are allowed"):
        read(SLOWEST * frames)


@pytest.mark.parametrize(
    "data", [b"", b"RIFF", b"fLaC" + bytes(100), b"ID3\x04\x00\x00\x00\x00\x00\x00fLaC" + FRAME * 3]
)
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequest):
        read(data)


def test_images_and_sounds_are_told_apart() -> None:
    assert all(map(sounds_like_audio, (tone(), FRAME, b"ID3\x04")))
    kinds = ("PNG", "JPEG", "WEBP", "GIF")
    assert not any(sounds_like_audio(picture(kind=kind)) for kind in kinds)


@given(st.binary(max_size=300))
def test_anything_has_a_length_or_none(data: bytes) -> None:
    for seconds in (wav_seconds(b"RIFF\0\0\0\0WAVE" + data), mp3_seconds(b"\xff" + data)):
        assert seconds is None or seconds >= 0
