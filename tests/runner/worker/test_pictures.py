"""What becomes of image files: pixels, or an error that names the place in the request."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from runner.chat.media import Media, MediaKind
from runner.engine import Picture
from runner.errors import InvalidRequest
from runner.worker.pictures import MAX_PIXELS, MAX_RATIO, read_picture
from tests.pictures import RED, encoded, picture


def read(data: bytes) -> Picture:
    return read_picture(Media(MediaKind.IMAGE, data, 0, "images[0]"))


def png_of_size(width: int, height: int) -> bytes:
    """A file that promises so many pixels and holds hardly any."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(("kind", "how"), [("PNG", {}), ("WEBP", {"lossless": True}), ("GIF", {})])
def test_one_picture_gives_the_same_pixels_in_every_format(kind: str, how: Any) -> None:
    assert read(picture(kind=kind, **how)) == read(picture(kind="PNG"))


def test_jpeg_gives_nearly_the_same_pixels() -> None:
    plain, lossy = read(picture()), read(picture(kind="JPEG", quality=95, subsampling=0))
    assert (lossy.width, lossy.height) == (plain.width, plain.height) == (48, 40)
    assert max(abs(one - other) for one, other in zip(plain.pixels, lossy.pixels, strict=True)) < 12


def test_what_is_transparent_is_seen_on_white() -> None:
    image = Image.new("RGBA", (2, 1), (*RED, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    assert read(encoded(image, "PNG")).pixels == bytes((*RED, 255, 255, 255))


def test_grey_and_palette_images_become_colours() -> None:
    assert read(encoded(Image.new("L", (1, 1), 7), "PNG")).pixels == bytes((7, 7, 7))
    assert read(encoded(Image.new("RGB", (1, 1), RED).convert("P"), "PNG")).pixels[0] > 150


def test_photos_that_were_taken_upright_are_seen_upright() -> None:
    image = Image.new("RGB", (40, 20), RED)
    exif = image.getexif()
    exif[0x0112] = 6
    turned = read(encoded(image, "JPEG", exif=exif))
    assert (turned.width, turned.height) == (20, 40)


def test_only_the_first_image_of_an_animation_is_seen() -> None:
    others = [Image.new("RGB", (4, 4), "black")]
    moving = encoded(Image.new("RGB", (4, 4), "white"), "GIF", save_all=True, append_images=others)
    assert set(read(moving).pixels) == {255}


@pytest.mark.parametrize("size", [(60_000, 60_000), (MAX_PIXELS + 1, 1), (2**31 - 1, 2**31 - 1), (8_000, 7_000)])
def test_a_picture_that_promises_too_many_pixels_is_refused_before_it_is_decoded(size: tuple[int, int]) -> None:
    with pytest.raises(InvalidRequest, match="pixels") as refused:
        read(png_of_size(*size))
    assert refused.value.field == "images[0]"


def test_stripes_are_refused() -> None:
    read(encoded(Image.new("RGB", (MAX_RATIO, 1)), "PNG"))
    with pytest.raises(InvalidRequest, match="one side may be 200 times the other"):
        read(encoded(Image.new("RGB", (MAX_RATIO + 1, 1)), "PNG"))


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"<svg/>", encoded(Image.new("RGB", (2, 2)), "BMP"), picture()[:-30]])
def test_other_files_and_broken_ones_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequest, match="is not an image that can be read"):
        read(data)


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(["PNG", "JPEG", "WEBP", "GIF"]),
    place=st.integers(0, 10_000),
    byte=st.integers(0, 255),
    cut=st.integers(0, 200),
)
def test_damaged_files_give_pixels_or_an_error_and_nothing_else(kind: str, place: int, byte: int, cut: int) -> None:
    damaged = bytearray(picture(kind=kind))
    damaged[place % len(damaged)] = byte
    try:
        found = read(bytes(damaged[: len(damaged) - cut]))
    except InvalidRequest as error:
        assert error.field == "images[0]"
    else:
        assert len(found.pixels) == 3 * found.width * found.height
