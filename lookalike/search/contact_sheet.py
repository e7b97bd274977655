"""A contact sheet: the question and its answers on one image."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from lookalike.encode.decode import decode
from lookalike.schema.errors import BadImage
from lookalike.schema.product import Hit

_TILE, _GAP, _CAPTION, _COLUMNS = 200, 16, 46, 5
_WIDE = 8
_PAPER, _INK, _FAINT, _ACCENT = "#ffffff", "#1d1d1f", "#8a8a8e", "#2f6fed"


@dataclass(frozen=True, slots=True)
class SheetQuery:
    """What the sheet shows as asked: an image, or words where there is none."""

    image: bytes | None
    words: str


def draw_sheet(question: SheetQuery, hits: Sequence[Hit]) -> Image.Image:
    """Draw the question on the left and the answers beside it, best first, each with its score."""
    rows = max(1, -(-len(hits) // _COLUMNS))
    across = min(max(len(hits), 1), _COLUMNS)
    left = _TILE + 3 * _GAP
    width, height = left + across * (_TILE + _GAP) + _GAP, _GAP + rows * (_TILE + _CAPTION + _GAP)
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    _tile(sheet, (_GAP, _GAP), _image(question.image, question.words))
    draw.rectangle((_GAP - 3, _GAP - 3, _GAP + _TILE + 2, _GAP + _TILE + 2), outline=_ACCENT, width=3)
    _caption(draw, (_GAP, _GAP + _TILE), question.words, "asked")
    draw.line((left - _GAP, _GAP, left - _GAP, height - _GAP), fill="#e3e3e6", width=2)
    for place, hit in enumerate(hits):
        corner = (
            left + _GAP // 2 + place % _COLUMNS * (_TILE + _GAP),
            _GAP + place // _COLUMNS * (_TILE + _CAPTION + _GAP),
        )
        _tile(sheet, corner, _stored_image(hit))
        _caption(draw, (corner[0], corner[1] + _TILE), hit.product_id, f"{hit.score:.3f}")
    return sheet


def draw_groups(groups: Sequence[Sequence[Hit]]) -> Image.Image:
    """Draw groups of images below each other, each image with its product id."""
    lines = [group[start : start + _WIDE] for group in groups for start in range(0, len(group), _WIDE)]
    across = max(map(len, lines), default=1)
    down = _TILE + _CAPTION + _GAP
    sheet = Image.new("RGB", (_GAP + across * (_TILE + _GAP), _GAP + max(1, len(lines)) * down), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for row, line in enumerate(lines):
        for column, hit in enumerate(line):
            corner = (_GAP + column * (_TILE + _GAP), _GAP + row * down)
            _tile(sheet, corner, _stored_image(hit))
            _caption(draw, (corner[0], corner[1] + _TILE), hit.product_id, f"{hit.score:.3f}")
    return sheet


def _tile(sheet: Image.Image, corner: tuple[int, int], image: Image.Image) -> None:
    fitted = ImageOps.pad(image, (_TILE, _TILE), color="#f4f4f6")
    sheet.paste(fitted, corner)


def _caption(draw: ImageDraw.ImageDraw, corner: tuple[int, int], title: str, note: str) -> None:
    draw.text((corner[0], corner[1] + 6), title if len(title) <= 26 else title[:25] + "…", fill=_INK, font=_font(15))
    draw.text((corner[0], corner[1] + 26), note, fill=_FAINT, font=_font(13))


def _image(content: bytes | None, words: str) -> Image.Image:
    if content is not None:
        return decode(content)
    card = Image.new("RGB", (_TILE, _TILE), "#eef3fe")
    text = "\n".join(textwrap.wrap(words, 18)[:6])
    ImageDraw.Draw(card).multiline_text(
        (_TILE / 2, _TILE / 2), text, fill=_ACCENT, font=_font(18), anchor="mm", align="center"
    )
    return card


def _stored_image(hit: Hit) -> Image.Image:
    """The image of a hit; a grey tile where its file is not on this machine any more."""
    try:
        return decode(Path(hit.image).read_bytes())
    except (OSError, BadImage):
        return Image.new("RGB", (_TILE, _TILE), "#d8d8dc")


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
