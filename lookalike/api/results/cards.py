"""The result of a search as HTML for a notebook: a card for each hit, its image inline."""

import base64
import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from html import escape
from string import Template

from lookalike.encode.decode import open_image
from lookalike.encode.image_limits import MAX_PIXELS
from lookalike.encode.pixel_budget import PixelBudget
from lookalike.schema.errors import LookalikeError
from lookalike.schema.product import Hit
from lookalike.serve.runtime.thumbnails import make_thumbnail

_EDGE = 160
_MAX_CARDS = 50
_MAX_FIELDS = 4
_MAX_LENGTH = 60
"""Characters of an id, a field or a message."""

_THREADS = 8

_PAGE = Template(
    '<div style="font-family:sans-serif;font-size:12px"><div style="margin:4px 0">$caption</div>'
    '<div style="display:flex;flex-wrap:wrap;gap:12px">$cards</div></div>'
)
_CARD = Template(
    '<div style="width:${edge}px"><div style="width:${edge}px;height:${edge}px;background:#f4f4f6;color:#555;'
    'display:flex;align-items:center;justify-content:center;overflow:hidden">$image</div>'
    "<div><b>$product_id</b></div><div>$score</div>$fields</div>"
)
_IMAGE = Template('<img alt="$alt" src="data:image/jpeg;base64,$content" style="max-width:100%;max-height:100%">')


def draw_cards(hits: Sequence[Hit], caption: str, load: Callable[[str], bytes]) -> str:
    """Draw up to 50 hits as HTML; `load` reads an image by its path or URL. All texts of a hit are escaped."""
    drawn = hits[:_MAX_CARDS]
    draw = partial(_draw_image, load=load, budget=PixelBudget(MAX_PIXELS))
    with ThreadPoolExecutor(_THREADS) as pool:
        cards = "".join(_draw_card(hit, image) for hit, image in zip(drawn, pool.map(draw, drawn), strict=True))
    more = f"; {len(hits) - len(drawn)} more are not drawn" if len(hits) > len(drawn) else ""
    return _PAGE.substitute(caption=escape(caption + more), cards=cards)


def _draw_card(hit: Hit, image: str) -> str:
    return _CARD.substitute(
        edge=_EDGE,
        image=image,
        product_id=escape(_shorten(hit.product_id)),
        score=f"{hit.score:.3f}",
        fields="".join(_draw_fields(hit)),
    )


def _draw_fields(hit: Hit) -> Iterable[str]:
    for name, value in list(hit.metadata.items())[:_MAX_FIELDS]:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        yield f'<div style="color:#777">{escape(_shorten(f"{name}: {text}"))}</div>'


def _draw_image(hit: Hit, load: Callable[[str], bytes], budget: PixelBudget) -> str:
    """Draw the image of a hit inline, or the reason why it cannot be read."""
    try:
        image = open_image(load(hit.image), budget.max_pixels)
        with budget.reserve(image.width * image.height):
            content = base64.b64encode(make_thumbnail(image, _EDGE)).decode()
    except LookalikeError as error:
        return f'<span style="padding:8px" title="{escape(str(error))}">no image: {escape(_shorten(str(error)))}</span>'
    return _IMAGE.substitute(alt=escape(hit.product_id), content=content)


def _shorten(text: str) -> str:
    return text if len(text) <= _MAX_LENGTH else f"{text[: _MAX_LENGTH - 1]}…"
