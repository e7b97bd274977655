"""Decoding: every format and mode, and broken images, which raise BadImage and nothing else."""

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lookalike.encode.decode import decode, load_rgb, open_image, reduce_on_decode
from lookalike.encode.encoder import Encoder
from lookalike.ingest.sample import photo, products
from lookalike.schema.errors import BadImage

RED, WHITE = (200, 30, 40), (255, 255, 255)


def encode_file(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def flat_image(mode: str, colour: object, size: tuple[int, int] = (40, 30)) -> Image.Image:
    return Image.new(mode, size, colour)  # type: ignore[arg-type]


def middle_pixel(content: bytes) -> tuple[int, int, int]:
    image = decode(content)
    assert image.mode == "RGB"
    red, green, blue = np.asarray(image)[image.height // 2, image.width // 2]
    return int(red), int(green), int(blue)


RGB = flat_image("RGB", RED)
NOISE = Image.effect_noise((99, 99), 50)
ANIMATION = encode_file(RGB, "GIF", save_all=True, append_images=[flat_image("RGB", (0, 0, 255))])
PAGES = encode_file(RGB, "TIFF", save_all=True, append_images=[flat_image("RGB", (0, 0, 255))])


@pytest.mark.parametrize(
    ("content", "colour"),
    [
        pytest.param(encode_file(RGB, "JPEG", quality=95), RED, id="jpeg"),
        pytest.param(encode_file(RGB, "JPEG", quality=95, progressive=True), RED, id="progressive jpeg"),
        pytest.param(encode_file(RGB.convert("CMYK"), "JPEG", quality=95), RED, id="cmyk jpeg"),
        pytest.param(encode_file(flat_image("L", 90), "JPEG"), (90, 90, 90), id="grey jpeg"),
        pytest.param(encode_file(RGB, "PNG"), RED, id="png"),
        pytest.param(encode_file(flat_image("RGBA", (*RED, 255)), "PNG"), RED, id="opaque rgba"),
        pytest.param(encode_file(flat_image("RGBA", (*RED, 0)), "PNG"), WHITE, id="clear rgba on white"),
        pytest.param(encode_file(flat_image("RGBA", (0, 0, 0, 128)), "PNG"), (127, 127, 127), id="half clear rgba"),
        pytest.param(encode_file(flat_image("LA", (10, 0)), "PNG"), WHITE, id="clear grey on white"),
        pytest.param(encode_file(flat_image("P", 0), "PNG", transparency=0), WHITE, id="palette, clear"),
        pytest.param(encode_file(RGB.quantize(4), "PNG"), RED, id="palette"),
        pytest.param(encode_file(RGB, "PNG", transparency=RED), WHITE, id="one colour clear"),
        pytest.param(encode_file(flat_image("1", 1), "PNG"), WHITE, id="black and white"),
        pytest.param(encode_file(flat_image("I;16", 25_700), "PNG"), (100, 100, 100), id="16-bit png"),
        pytest.param(encode_file(flat_image("I;16", 25_700), "TIFF"), (100, 100, 100), id="16-bit tiff"),
        pytest.param(encode_file(flat_image("I;16", 250), "TIFF"), (1, 1, 1), id="dark 16-bit tiff"),
        pytest.param(encode_file(flat_image("I;16B", 250), "TIFF"), (1, 1, 1), id="dark big-endian tiff"),
        pytest.param(encode_file(flat_image("F", 0.5), "TIFF"), (128, 128, 128), id="float tiff"),
        pytest.param(encode_file(flat_image("F", 1.02), "TIFF"), WHITE, id="float tiff, a bit over"),
        pytest.param(encode_file(RGB.convert("CMYK"), "TIFF"), RED, id="cmyk tiff"),
        pytest.param(encode_file(RGB, "WEBP", lossless=True), RED, id="webp"),
        pytest.param(encode_file(RGB, "BMP"), RED, id="bmp"),
        pytest.param(ANIMATION, RED, id="gif: first frame"),
        pytest.param(PAGES, RED, id="tiff: first page"),
        pytest.param(encode_file(flat_image("RGB", RED, (1, 1)), "PNG"), RED, id="one pixel"),
        pytest.param(encode_file(flat_image("RGB", RED, (20_000, 1)), "PNG"), RED, id="one line"),
    ],
)
def test_every_format_and_mode_is_decoded_to_its_colour(content: bytes, colour: tuple[int, int, int]) -> None:
    assert middle_pixel(content) == pytest.approx(colour, abs=4)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    upright = Image.new("RGB", (60, 40), WHITE)
    upright.paste(RED, (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = orientation
    back = [None, 0, 3, 1, 5, 2, 6, 4][orientation - 1]  # the inverse of the transposition that the orientation names
    content = encode_file(upright if back is None else upright.transpose(Image.Transpose(back)), "PNG", exif=exif)

    assert np.array_equal(np.asarray(decode(content)), np.asarray(upright))


def decompression_bomb() -> bytes:
    """A PNG of 30,000×30,000 pixels in a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"", "the file is empty", id="empty"),
        pytest.param(b"hello, this is text", "not an image", id="text"),
        pytest.param(encode_file(RGB, "JPEG")[:300], "broken|not an image", id="truncated jpeg"),
        pytest.param(encode_file(NOISE, "PNG")[:-2_000], "broken", id="truncated png"),
        pytest.param(encode_file(NOISE, "WEBP")[:500], "broken|not an image", id="truncated webp"),
        pytest.param(decompression_bomb(), "more than 64000000 pixels", id="bomb"),
        pytest.param(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image", id="PostScript"),
    ],
)
def test_bytes_that_are_not_an_image_raise_badimage_with_the_reason(content: bytes, reason: str) -> None:
    with pytest.raises(BadImage, match=reason):
        decode(content)


def test_an_image_above_the_pixel_limit_is_refused() -> None:
    with pytest.raises(BadImage, match="40×30 has more than 1000 pixels"):
        decode(encode_file(RGB, "PNG"), max_pixels=1_000)


@given(st.binary(max_size=200), st.sampled_from(["JPEG", "PNG", "GIF", "TIFF", "BMP", "WEBP"]), st.integers(0, 400))
def test_damaged_bytes_raise_nothing_but_badimage(noise: bytes, kind: str, offset: int) -> None:
    content = bytearray(encode_file(RGB, kind))
    content[offset : offset + len(noise)] = noise
    with contextlib.suppress(BadImage):
        assert decode(bytes(content)).mode == "RGB"


@pytest.mark.parametrize(
    ("size", "reduced"),
    [((1023, 4000), (1023, 4000)), ((1024, 1024), (512, 512)), ((3001, 2100), (751, 525)), ((9000, 6000), (1125, 750))],
)
def test_a_large_jpeg_is_decoded_at_reduced_size(size: tuple[int, int], reduced: tuple[int, int]) -> None:
    file = io.BytesIO()
    Image.new("RGB", size, "red").save(file, "JPEG")
    image = load_rgb(reduce_on_decode(open_image(file.getvalue()), 256))
    assert image.size == reduced
    assert image.getpixel((9, 9)) == (254, 0, 0)


def test_other_formats_and_images_for_an_unknown_edge_are_decoded_at_full_size() -> None:
    for kind, edge in (("PNG", 256), ("WEBP", 256), ("JPEG", None)):
        file = io.BytesIO()
        Image.new("RGB", (2_000, 1_100)).save(file, kind)
        assert load_rgb(reduce_on_decode(open_image(file.getvalue()), edge)).size == (2_000, 1_100)


def test_decoding_at_reduced_size_hardly_changes_the_vector(encoder: Encoder) -> None:
    photos = [photo(product, 0).resize((320, 320)) for product in products()[:27]]
    for start in range(0, 27, 9):
        collage = Image.new("RGB", (960 * 2, 960 * 2))
        for cell in range(36):
            collage.paste(photos[start + cell % 9], (cell % 6 * 320, cell // 6 * 320))
        file = io.BytesIO()
        collage.save(file, "JPEG", quality=90)
        whole, small = (load_rgb(reduce_on_decode(open_image(file.getvalue()), edge)) for edge in (None, encoder.edge))
        assert small.size == (960, 960)
        vectors = encoder.encode_images(np.stack([encoder.prepare(image) for image in (whole, small)]))
        assert vectors[0] @ vectors[1] >= 0.995
