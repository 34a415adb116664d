"""Small image and sound files for tests."""

from __future__ import annotations

import base64
import io
import math
import struct
import wave
from typing import Any

from PIL import Image

RED, BLUE = (220, 30, 30), (20, 40, 210)


def picture(
    colour: tuple[int, int, int] = RED, *, kind: str = "PNG", size: tuple[int, int] = (48, 40), **how: Any
) -> bytes:
    """A rectangle of one colour in a white frame."""
    image = Image.new("RGB", size, "white")
    image.paste(colour, (8, 8, size[0] - 8, size[1] - 8))
    return encoded(image, kind, **how)


def encoded(image: Image.Image, kind: str, **how: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


def tone(hertz: float = 440, *, seconds: float = 0.2, rate: int = 16_000) -> bytes:
    """A WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        for number in range(int(seconds * rate)):
            out.writeframesraw(struct.pack("<h", int(12_000 * math.sin(2 * math.pi * hertz * number / rate))))
    return file.getvalue()


def as_text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def data_url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{as_text(data)}"
