"""A contact sheet: a query and its hits, or groups of hits, drawn on one image."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from lookalike.encode.decode import decode
from lookalike.schema.errors import BadImage
from lookalike.schema.product import Hit

_TILE, _GAP, _CAPTION, _COLUMNS = 200, 16, 46, 5
_GROUP_COLUMNS = 8
_BACKGROUND, _BLACK, _GREY, _BLUE = "#ffffff", "#1d1d1f", "#8a8a8e", "#2f6fed"
_MAX_TITLE = 26

Corner = tuple[int, int]
"""The upper left corner of a tile: x, y."""


@dataclass(frozen=True, slots=True)
class SheetQuery:
    """The query as the sheet shows it: all its images, or `words` where it has none."""

    images: Sequence[bytes]
    words: str


def draw_sheet(query: SheetQuery, hits: Sequence[Hit]) -> Image.Image:
    """Draw the query on the left and the hits beside it, best first, each with its score."""
    rows = max(1, -(-len(hits) // _COLUMNS))
    columns = min(max(len(hits), 1), _COLUMNS)
    left = _TILE + 3 * _GAP
    width, height = left + columns * (_TILE + _GAP) + _GAP, _GAP + rows * (_TILE + _CAPTION + _GAP)
    sheet = Image.new("RGB", (width, height), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    _paste_tile(sheet, (_GAP, _GAP), _query_image(query))
    draw.rectangle((_GAP - 3, _GAP - 3, _GAP + _TILE + 2, _GAP + _TILE + 2), outline=_BLUE, width=3)
    _draw_caption(draw, (_GAP, _GAP + _TILE), query.words, "query")
    draw.line((left - _GAP, _GAP, left - _GAP, height - _GAP), fill="#e3e3e6", width=2)
    for index, hit in enumerate(hits):
        row, column = divmod(index, _COLUMNS)
        _draw_hit(sheet, (left + _GAP // 2 + column * (_TILE + _GAP), _GAP + row * (_TILE + _CAPTION + _GAP)), hit)
    return sheet


def draw_groups(groups: Sequence[Sequence[Hit]]) -> Image.Image:
    """Draw groups of hits below each other, each image with its product id and score."""
    lines = [
        group[start : start + _GROUP_COLUMNS] for group in groups for start in range(0, len(group), _GROUP_COLUMNS)
    ]
    columns = max(map(len, lines), default=1)
    row_height = _TILE + _CAPTION + _GAP
    size = (_GAP + columns * (_TILE + _GAP), _GAP + max(1, len(lines)) * row_height)
    sheet = Image.new("RGB", size, _BACKGROUND)
    for row, line in enumerate(lines):
        for column, hit in enumerate(line):
            _draw_hit(sheet, (_GAP + column * (_TILE + _GAP), _GAP + row * row_height), hit)
    return sheet


def _draw_hit(sheet: Image.Image, corner: Corner, hit: Hit) -> None:
    _paste_tile(sheet, corner, _stored_image(hit))
    _draw_caption(ImageDraw.Draw(sheet), (corner[0], corner[1] + _TILE), hit.product_id, f"{hit.score:.3f}")


def _paste_tile(sheet: Image.Image, corner: Corner, image: Image.Image) -> None:
    sheet.paste(ImageOps.pad(image, (_TILE, _TILE), color="#f4f4f6"), corner)


def _draw_caption(draw: ImageDraw.ImageDraw, corner: Corner, title: str, note: str) -> None:
    short = title if len(title) <= _MAX_TITLE else title[: _MAX_TITLE - 1] + "…"
    draw.text((corner[0], corner[1] + 6), short, fill=_BLACK, font=_font(15))
    draw.text((corner[0], corner[1] + 26), note, fill=_GREY, font=_font(13))


def _query_image(query: SheetQuery) -> Image.Image:
    """The images of the query, several side by side in one tile; where it has none, its words on a card."""
    if len(query.images) == 1:
        return decode(query.images[0])
    if query.images:
        return _mosaic(query.images)
    card = Image.new("RGB", (_TILE, _TILE), "#eef3fe")
    text = "\n".join(textwrap.wrap(query.words, 18)[:6])
    ImageDraw.Draw(card).multiline_text(
        (_TILE / 2, _TILE / 2), text, fill=_BLUE, font=_font(18), anchor="mm", align="center"
    )
    return card


def _mosaic(images: Sequence[bytes]) -> Image.Image:
    """Draw all images into one tile, in rows as long as there are rows."""
    columns = math.ceil(math.sqrt(len(images)))
    edge = _TILE // columns
    tile = Image.new("RGB", (_TILE, _TILE), _BACKGROUND)
    for index, content in enumerate(images):
        row, column = divmod(index, columns)
        tile.paste(ImageOps.pad(decode(content), (edge, edge), color="#f4f4f6"), (column * edge, row * edge))
    return tile


def _stored_image(hit: Hit) -> Image.Image:
    """The image of a hit; a grey tile where its file is no longer on this machine."""
    try:
        return decode(Path(hit.image).read_bytes())
    except (OSError, BadImage):
        return Image.new("RGB", (_TILE, _TILE), "#d8d8dc")


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
