"""From the bytes of an image to RGB pixels; a broken image raises BadImage and nothing else."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, UnidentifiedImageError

from lookalike.encode.image_limits import MAX_PIXELS, PIXEL_CEILING
from lookalike.schema.errors import BadImage

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF")

_DRAFT_FACTOR = 2
"""A reduced JPEG keeps at least so many times the pixels that the model sees, in width and height."""

_EXIF_ORIENTATION = 0x0112
_TO_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")
_OTHER_FORMATS = {
    b"%PDF": "a PDF",
    b"8BPS": "a Photoshop file",
    b"\xff\x0a": "JPEG XL",
    b"\x00\x00\x00\x0cJXL ": "JPEG XL",
    b"\x00\x00\x00\x0cjP  ": "JPEG 2000",
}
"""What people take for images that can be read: first bytes → name."""

# Pillow warns of large images; we refuse them, at a lower limit. Broken metadata says nothing about the image itself.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


def decode(content: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode an image to RGB, upright, on white where it is transparent; of an animation, the first frame.

    Raises BadImage with the reason when the bytes are not an image, are cut short, or unpack to more than
    `max_pixels` pixels.
    """
    return load_rgb(open_image(content, max_pixels))


def open_image(content: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read an image's header, which holds its size; raises BadImage as `decode` does."""
    if not content:
        raise BadImage("the file is empty")
    with _errors_as_bad_image(max_pixels, content):
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    if image.width * image.height > max_pixels:
        raise BadImage(f"{image.width}×{image.height} has more than {max_pixels} pixels, the limit; make it smaller")
    return image


def reduce_on_decode(image: Image.Image, edge: int | None) -> Image.Image:
    """Make Pillow decode a JPEG at a half, a quarter or an eighth of its size, for a model that sees `edge` pixels.

    At least twice as many pixels are left on each edge, so that vectors hardly change: their cosine is .9995 on average
    and .999 at worst, on collages of photos; with `edge` pixels left it is .995. Other formats stay as they are.
    """
    shorter = min(image.size)
    if edge is not None and shorter >= 2 * _DRAFT_FACTOR * edge:
        target = _DRAFT_FACTOR * edge
        image.draft(None, (-(-image.width * target // shorter), -(-image.height * target // shorter)))
    return image


def load_rgb(image: Image.Image) -> Image.Image:
    """Decode an opened image; raises BadImage as `decode` does."""
    with _errors_as_bad_image():
        return _to_rgb(_turn_upright(image))


@contextmanager
def _errors_as_bad_image(max_pixels: int = MAX_PIXELS, content: bytes = b"") -> Iterator[None]:
    try:
        yield
    except Image.DecompressionBombError as error:
        limit = min(max_pixels, PIXEL_CEILING)
        raise BadImage(f"it has more than {limit} pixels, the limit; make it smaller") from error
    except UnidentifiedImageError as error:
        kind = _name_format(content)
        advice = f"; it is {kind}: save it as JPEG or PNG" if kind else ""
        raise BadImage(f"not an image that can be read ({', '.join(FORMATS)}){advice}") from error
    # On broken input, Pillow's decoders raise many kinds of errors.
    except Exception as error:
        raise BadImage(f"the image is broken: {error or type(error).__name__}") from error


def _name_format(content: bytes) -> str:
    """Return what a file is that holds no image which can be read, where its first bytes tell."""
    start = content[:256].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if content[4:8] == b"ftyp" and content[8:12] in _HEIC_BRANDS:
        return "HEIC"
    if b"<svg" in start:
        return "SVG"
    return next((name for first, name in _OTHER_FORMATS.items() if content.startswith(first)), "")


def _turn_upright(image: Image.Image) -> Image.Image:
    image.load()
    try:
        transposition = _TO_UPRIGHT.get(image.getexif().get(_EXIF_ORIENTATION, 1))
    # Broken EXIF data says nothing about the image itself.
    except Exception:  # noqa: BLE001
        transposition = None
    return image if transposition is None else image.transpose(transposition)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode[0] in "IF":
        return _scale_deep_grey(image)
    if image.has_transparency_data:
        colours = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(colours, mask=colours.getchannel("A"))
        return white
    return image.convert("RGB")


def _scale_deep_grey(image: Image.Image) -> Image.Image:
    """Scale 16-bit, 32-bit or floating-point grey to 8 bits; Pillow would clip it to white."""
    grey = np.nan_to_num(np.asarray(image).astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    brightest = float(grey.max())
    if image.mode.startswith("I;16"):
        white = 65_535.0
    elif image.mode == "F" and brightest <= 2:  # from 0 to 1, and a bit more after sharpening
        white = 1.0
    else:
        white = next((top for top in (255.0, 65_535.0) if brightest <= top), brightest)
    return Image.fromarray((grey.clip(0, white) * (255.0 / white) + 0.5).astype(np.uint8)).convert("RGB")
