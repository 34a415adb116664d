"""Image files to pixels, with limits that are looked at before anything is decoded."""

from __future__ import annotations

import io
import warnings

from PIL import Image, ImageOps

from runner.chat.media import Media
from runner.engine import Picture
from runner.errors import InvalidRequest

FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
MAX_PIXELS = 50_000_000
"""Width times height; 150 MB of memory once decoded."""
MAX_RATIO = 200
"""Of the longer side to the shorter one; models cut images into squares, and stripes have too many or none."""

_BROKEN = (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, OverflowError, MemoryError)
"""What Pillow raises for files that are not what they say."""


def read_picture(media: Media) -> Picture:
    """The first image of a file, upright, on white where it is transparent. Blocks for as long as decoding takes.

    Raises InvalidRequest for what is no such file or has too many pixels.
    """
    try:
        with warnings.catch_warnings():
            # Doubtful sizes are ours to judge, and oddities of a file that can be read do not matter.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(media.data), formats=FORMATS) as image:
                _check_size(media, image.width, image.height)
                return _pixels(image)
    except Image.DecompressionBombError:
        raise _too_large(media) from None
    except _BROKEN:
        raise InvalidRequest(
            f"{media.field} is not an image that can be read; PNG, JPEG, WebP and GIF can.", media.field
        ) from None


def _check_size(media: Media, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise _too_large(media)
    if min(width, height) < 1 or max(width, height) > MAX_RATIO * min(width, height):
        raise InvalidRequest(
            f"{media.field} is {width} by {height} pixels; one side may be {MAX_RATIO} times the other.", media.field
        )


def _too_large(media: Media) -> InvalidRequest:
    return InvalidRequest(f"{media.field} has more than {MAX_PIXELS} pixels.", media.field)


def _pixels(image: Image.Image) -> Picture:
    upright = ImageOps.exif_transpose(image)
    if upright.has_transparency_data:
        layer = upright.convert("RGBA")
        ground = Image.new("RGBA", layer.size, "white")
        upright = Image.alpha_composite(ground, layer)
    rgb = upright.convert("RGB")
    return Picture(rgb.width, rgb.height, rgb.tobytes())
