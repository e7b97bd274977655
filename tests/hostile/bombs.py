"""Image files that are small and unpack to something huge, end early, or are two files at once."""

import io
import struct
import zlib
from collections.abc import Iterator
from functools import cache

import numpy as np
from PIL import Image

EDGE = 60_000
FRAMES = 100_000
GIGABYTE = 2**30

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
HTML = b"<!doctype html><script>document.title='evil'</script>"


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *before: bytes, mode: tuple[int, int] = (8, 2), rows: bytes | None = None) -> bytes:
    """Write a PNG of black pixels, of `mode` (bits, colour type), with more chunks before the pixels.

    `rows` are the compressed pixels, by default too few of them.
    """
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, *mode, 0, 0, 0))
    pixels = png_chunk(b"IDAT", zlib.compress(b"\0") if rows is None else rows)
    return PNG_SIGNATURE + header + b"".join(before) + pixels + png_chunk(b"IEND", b"")


def compress_zeros(size: int) -> bytes:
    """Compress so many zero bytes, without holding them."""
    compressor, block = zlib.compressobj(9), bytes(2**20)
    parts = [compressor.compress(block) for _ in range(size // len(block))]
    return b"".join(parts) + compressor.compress(bytes(size % len(block))) + compressor.flush()


@cache
def gigabyte_of_zeros() -> bytes:
    return compress_zeros(GIGABYTE)


def small(image_format: str, size: tuple[int, int] = (60, 60)) -> bytes:
    """Write a small image of noise."""
    file = io.BytesIO()
    noise = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, image_format)
    return file.getvalue()


def pixel_bombs() -> Iterator[tuple[str, bytes]]:
    """60,000 × 60,000 pixels in a few bytes (WebP: its largest size, 16,383 × 16,383)."""
    yield "PNG", png(EDGE, EDGE)
    yield "PNG, whole, a bit too large", png(8_001, 8_000, rows=compress_zeros((8_001 * 3 + 1) * 8_000))
    frame = struct.pack("<BHHHHB", 0x2C, 0, 0, EDGE, EDGE, 0) + b"\x02\x02\x4c\x01\x00;"
    yield "GIF", b"GIF89a" + struct.pack("<HHBBB", EDGE, EDGE, 0x80, 0, 0) + bytes(6) + frame
    yield (
        "GIF, whose first frame is larger than its screen",
        (b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6) + frame),
    )
    yield "TIFF", tiff(EDGE, EDGE)
    yield "WebP", webp(16_383, 16_383)
    yield "AVIF", avif(EDGE, EDGE)
    jpeg = small("JPEG")
    at = jpeg.index(b"\xff\xc0") + 5
    yield "JPEG", jpeg[:at] + struct.pack(">HH", EDGE, EDGE) + jpeg[at + 4 :]
    bmp = small("BMP")
    yield "BMP", bmp[:18] + struct.pack("<ii", EDGE, EDGE) + bmp[26:]


def frame_bombs() -> Iterator[tuple[str, bytes]]:
    """100,000 frames, or a loop of them; the first one is what counts."""
    head = b"GIF89a" + struct.pack("<HHBBB", 2, 2, 0x80, 0, 0) + b"\xff\0\0\0\0\xff"
    frame = struct.pack("<BHHHHB", 0x2C, 0, 0, 2, 2, 0) + b"\x02\x03\x44\x02\x05\x00"
    yield "GIF", head + frame * FRAMES + b";"
    control = b"".join(
        png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", number, 2, 2, 0, 0, 1, 1, 0, 0)) for number in range(FRAMES)
    )
    animation = png_chunk(b"acTL", struct.pack(">II", FRAMES, 0))
    yield "PNG (APNG)", png(2, 2, animation, control, rows=zlib.compress(bytes(2 * 7)))
    yield "TIFF, pages in a circle", tiff(2, 2, next_page=8)
    yield "WebP", animated_webp(FRAMES)
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(
        file, "AVIF", save_all=True, append_images=[Image.new("RGB", (8, 8), (n, 0, 0)) for n in range(60)]
    )
    yield "AVIF (61)", file.getvalue()


def metadata_bombs() -> Iterator[tuple[str, bytes]]:
    """Text, colour profiles, EXIF and XMP that inflate to a gigabyte, or say that they are so long."""
    pixels = zlib.compress(bytes(2 * 7))
    bomb = gigabyte_of_zeros()
    yield "PNG, zTXt", png(2, 2, png_chunk(b"zTXt", b"Comment\0\0" + bomb), rows=pixels)
    yield "PNG, iCCP", png(2, 2, png_chunk(b"iCCP", b"profile\0\0" + bomb), rows=pixels)
    yield "PNG, XMP in iTXt", png(2, 2, png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + bomb), rows=pixels)
    text = png_chunk(b"zTXt", b"C\0\0" + compress_zeros(2**20 - 1))
    yield "PNG, 2,000 zTXt of 1 MB", png(2, 2, text * 2_000, rows=pixels)
    yield "PNG, pixels", png(2, 2, rows=bomb)
    exif = b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHII", 0x010E, 2, 2**31, 8) + bytes(4)
    yield "PNG, EXIF", png(2, 2, png_chunk(b"eXIf", exif), rows=pixels)
    jpeg = small("JPEG")
    segment = b"Exif\0\0" + exif
    yield "JPEG, EXIF", jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:]
    profile = b"".join(
        b"\xff\xe2" + struct.pack(">H", 65_000 + 2) + b"ICC_PROFILE\0" + bytes([n % 255 + 1, 255]) + bytes(65_000 - 14)
        for n in range(300)
    )
    yield "JPEG, 20 MB of ICC profile", jpeg[:2] + profile + jpeg[2:]
    yield "TIFF, a tag of 4 GB", tiff(2, 2, extra=(0x02BC, 1, 2**32 - 1, 8))
    yield "TIFF, 65,535 tags", tiff(2, 2, tags=65_535)
    webp_image = webp(2, 2)
    chunk = b"EXIF" + struct.pack("<I", 2**32 - 1) + b"II*\0"
    yield "WebP, EXIF", webp_image[:4] + struct.pack("<I", len(webp_image) - 8 + len(chunk)) + webp_image[8:] + chunk
    comment = b"!\xfe" + (b"\xff" + bytes(255)) * 80_000 + b"\0"
    head = b"GIF89a" + struct.pack("<HHBBB", 2, 2, 0x80, 0, 0) + bytes(6)
    frame = struct.pack("<BHHHHB", 0x2C, 0, 0, 2, 2, 0) + b"\x02\x03\x44\x02\x05\x00;"
    yield "GIF, a comment of 20 MB", head + comment + frame


def largest() -> Iterator[tuple[str, bytes]]:
    """As many pixels as are allowed, in the modes that take most memory."""
    edge = 8_000
    yield "PNG, RGB", png(edge, edge, rows=compress_zeros((edge * 3 + 1) * edge))
    yield "PNG, RGBA", png(edge, edge, mode=(8, 6), rows=compress_zeros((edge * 4 + 1) * edge))
    yield "PNG, 16 bits of grey", png(edge, edge, mode=(16, 0), rows=compress_zeros((edge * 2 + 1) * edge))
    yield "PNG, black and white", png(edge, edge, mode=(1, 0), rows=compress_zeros((edge // 8 + 1) * edge))
    file = io.BytesIO()
    Image.new("F", (edge, edge)).save(file, "TIFF", compression="tiff_adobe_deflate")
    yield "TIFF, floating point", file.getvalue()


def tiff(
    width: int,
    height: int,
    *,
    next_page: int = 0,
    extra: tuple[int, int, int, int] | None = None,
    tags: int = 0,
) -> bytes:
    """Write a TIFF of one strip of RGB, with `extra` or many tags, and the offset of the next page."""
    entries = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 2)]
    entries += [(273, 4, 1, 8), (277, 3, 1, 3), (278, 4, 1, height), (279, 4, 1, 12)]
    entries += [extra] if extra else []
    entries += [(40_000 + number % 8_000, 4, 1, 0) for number in range(tags - len(entries))]
    body = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0\x08\0\0\0" + body + struct.pack("<I", next_page) + bytes(12)


def webp(width: int, height: int) -> bytes:
    """Write a WebP whose header has another size than its pixels."""
    file = io.BytesIO()
    Image.new("RGB", (2, 2), "red").save(file, "WEBP", lossless=True)
    content = file.getvalue()
    at = content.index(b"VP8L") + 9
    bits = struct.unpack("<I", content[at : at + 4])[0] & ~0xFFFFFFF
    return content[:at] + struct.pack("<I", bits | (width - 1) | ((height - 1) << 14)) + content[at + 4 :]


def animated_webp(frames: int) -> bytes:
    """Repeat a frame of 2 × 2 pixels."""
    content = webp(2, 2)
    picture = content[content.index(b"VP8L") :]
    data = bytes(6) + (1).to_bytes(3, "little") * 2 + (10).to_bytes(3, "little") + b"\0" + picture
    frame = b"ANMF" + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)
    canvas = b"VP8X" + struct.pack("<IB", 10, 2) + bytes(3) + (1).to_bytes(3, "little") * 2
    body = b"WEBP" + canvas + b"ANIM" + struct.pack("<IIH", 6, 0, 0) + frame * frames
    return b"RIFF" + struct.pack("<I", len(body)) + body


def avif(width: int, height: int) -> bytes:
    """Write an AVIF whose header has another size than its pixels."""
    content = small("AVIF")
    at = content.index(b"ispe") + 8
    return content[:at] + struct.pack(">II", width, height) + content[at + 8 :]


def truncated() -> Iterator[tuple[str, bytes]]:
    """Half of a file, in each format."""
    for image_format in ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "AVIF", "BMP"):
        content = small(image_format, (200, 200))
        yield image_format, content[: len(content) // 2]


def polyglots() -> Iterator[tuple[str, bytes]]:
    """Images that are a page, a script or an archive too."""
    archive = b"PK\x05\x06" + bytes(18)
    yield "PNG and HTML", png(2, 2, png_chunk(b"tEXt", b"Comment\0" + HTML), rows=zlib.compress(bytes(14))) + HTML
    yield "PNG and ZIP", small("PNG") + archive
    yield "JPEG and HTML", small("JPEG") + HTML
    yield "GIF and JavaScript", small("GIF") + b"*/=1;document.title='evil'//"


def disguised() -> Iterator[tuple[str, bytes]]:
    """What is no image, under the name of one."""
    yield "HTML", HTML
    yield "SVG", b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
    yield "ZIP", b"PK\x03\x04" + bytes(100)
    yield "PDF", b"%PDF-1.7\n%%EOF"
    yield "EPS", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"
    yield "a program", b"\x7fELF" + bytes(100)
    yield "pickle", b"\x80\x04\x95"
