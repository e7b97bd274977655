"""A sample catalogue, drawn: enough to try everything without a single photo of one's own.

Every image is a product (a shape, a colour and a pattern) from its own angle, distance, light and background. The
same image comes out for the same name, on every machine.
"""

import csv
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from random import Random

from PIL import Image, ImageChops, ImageDraw, ImageEnhance, ImageFilter

from lookalike.schema.errors import BadSettings

SIDE = 320
_SCALE = 2
"""Everything is drawn twice as large and shrunk, which smooths the edges."""

_DRAWN = 1_577_880_000
"""When all of it was drawn, in seconds since 1970."""

Colour = tuple[int, int, int]
Point = tuple[float, float]

COLOURS: dict[str, Colour] = {
    "red": (200, 45, 45),
    "orange": (232, 128, 36),
    "yellow": (236, 196, 52),
    "green": (60, 140, 76),
    "teal": (36, 142, 150),
    "blue": (48, 92, 190),
    "purple": (124, 72, 168),
    "black": (52, 52, 58),
}
PATTERNS = ("plain", "striped", "dotted", "checked")

# Outlines on a square from 0 to 1.
SHAPES: dict[str, list[Point]] = {
    "mug": [(0.22, 0.25), (0.66, 0.25), (0.64, 0.8), (0.24, 0.8)],
    "bottle": [
        *[(0.43, 0.08), (0.57, 0.08), (0.57, 0.3), (0.68, 0.42)],
        *[(0.68, 0.92), (0.32, 0.92), (0.32, 0.42), (0.43, 0.3)],
    ],
    "shirt": [
        *[(0.34, 0.15), (0.66, 0.15), (0.92, 0.34), (0.82, 0.5), (0.7, 0.42)],
        *[(0.7, 0.88), (0.3, 0.88), (0.3, 0.42), (0.18, 0.5), (0.08, 0.34)],
    ],
    "bag": [(0.18, 0.4), (0.82, 0.4), (0.9, 0.88), (0.1, 0.88)],
    "lamp": [(0.36, 0.12), (0.64, 0.12), (0.84, 0.52), (0.16, 0.52)],
    "chair": [(0.26, 0.1), (0.4, 0.1), (0.4, 0.5), (0.78, 0.5), (0.78, 0.62), (0.26, 0.62)],
    "shoe": [(0.12, 0.36), (0.36, 0.36), (0.52, 0.54), (0.84, 0.6), (0.92, 0.74), (0.12, 0.74)],
    "hat": [
        *[(0.32, 0.3), (0.68, 0.3), (0.74, 0.62), (0.96, 0.66)],
        *[(0.96, 0.74), (0.04, 0.74), (0.04, 0.66), (0.26, 0.62)],
    ],
}


@dataclass(frozen=True, slots=True)
class Product:
    """One product of the sample catalogue."""

    category: str
    colour: str
    pattern: str

    @property
    def product_id(self) -> str:
        """For example `red-striped-mug`."""
        return f"{self.colour}-{self.pattern}-{self.category}"


def products() -> list[Product]:
    """The catalogue: every shape in every colour, the patterns in turn."""
    return [
        Product(category, colour, PATTERNS[(row + column) % len(PATTERNS)])
        for row, category in enumerate(SHAPES)
        for column, colour in enumerate(COLOURS)
    ]


def draw_catalogue(folder: Path, photos_per_product: int = 3) -> int:
    """Write `photos/{category}/{product_id}/{n}.jpg`, new photos of some products to `queries/`, and `products.csv`.

    The manifest names the photos with a title and a price. Returns the number of catalogue photos. Raises BadSettings
    where it cannot write.
    """
    views = [
        (product, view, folder / "photos" / product.category / product.product_id / f"{view + 1}.jpg")
        for product in products()
        for view in range(photos_per_product)
    ]
    queries = [(product, 1_000, folder / "queries" / f"{product.product_id}.jpg") for product in _asked_for()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_manifest(folder, photos_per_product)
        # Pillow holds no lock while it draws.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for _ in pool.map(_draw, *zip(*views, *queries, strict=True)):
                pass
    except OSError as error:
        raise BadSettings(f"the sample catalogue cannot be written to {str(folder)!r}: {error.strerror}") from error
    return len(views)


def _draw(product: Product, view: int, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    photo(product, view).save(file, quality=90)
    # Drawn again, it is the same image. (What was written a moment ago would also be looked at twice.)
    os.utime(file, (_DRAWN, _DRAWN))


def _write_manifest(folder: Path, photos_per_product: int) -> None:
    with (folder / "products.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["product_id", "image", "title", "price"])
        for product in products():
            title = product.product_id.replace("-", " ").capitalize()
            price = Random(product.product_id).randrange(10, 180) / 2  # noqa: S311  it is for a price tag
            for view in range(1, photos_per_product + 1):
                path = f"photos/{product.category}/{product.product_id}/{view}.jpg"
                table.writerow([product.product_id, path, title, price])


def photo(product: Product, view: int) -> Image.Image:
    """Draw one photo of a product, RGB, 320×320: another `view` is another photo of the same thing."""
    chance = Random(f"{product.product_id}/{view}")  # noqa: S311  it is for drawing
    size = SIDE * _SCALE
    thing = _thing(product, size)
    side = int(size * chance.uniform(0.72, 0.95))
    turned = thing.resize((side, side), Image.Resampling.LANCZOS).rotate(
        chance.uniform(-14, 14), Image.Resampling.BILINEAR, expand=True
    )
    scene = _background(chance, size)
    corner = tuple((size - turned.width) // 2 + chance.randint(-size // 16, size // 16) for _ in "xy")
    _paste_with_shadow(scene, turned, (corner[0], corner[1]))
    lit = ImageEnhance.Brightness(scene).enhance(chance.uniform(0.85, 1.12))
    return lit.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def _asked_for() -> Iterator[Product]:
    """One product of each category, each in another colour."""
    catalogue = products()
    for row in range(len(SHAPES)):
        yield catalogue[row * len(COLOURS) + row % len(COLOURS)]


@lru_cache(maxsize=len(SHAPES) * len(COLOURS))
def _thing(product: Product, size: int) -> Image.Image:
    """Draw the product itself on nothing: RGBA, size×size."""
    colour = COLOURS[product.colour]
    outline = Image.new("L", (size, size), 0)
    ImageDraw.Draw(outline).polygon([(x * size, y * size) for x, y in SHAPES[product.category]], fill=255)
    # Rounds the corners.
    outline = outline.filter(ImageFilter.GaussianBlur(size / 60)).point(lambda value: 255 if value > 127 else 0)
    thing = Image.new("RGBA", (size, size), (0, 0, 0, 0))
    _draw_parts(ImageDraw.Draw(thing), product.category, size, _shade(colour, 0.62))
    thing.paste(_cloth(product.pattern, colour, size), mask=outline)
    return thing


def _draw_parts(draw: ImageDraw.ImageDraw, category: str, size: int, colour: Colour) -> None:
    """Draw what sticks out of the outline."""

    def box(*corners: float) -> tuple[float, ...]:
        return tuple(corner * size for corner in corners)

    thick = size // 22
    if category == "mug":
        draw.ellipse(box(0.55, 0.36, 0.84, 0.68), outline=colour, width=thick)
    elif category == "bottle":
        draw.rectangle(box(0.41, 0.03, 0.59, 0.1), fill=colour)
    elif category == "bag":
        draw.arc(box(0.32, 0.14, 0.68, 0.66), 180, 360, fill=colour, width=thick)
    elif category == "lamp":
        draw.rectangle(box(0.48, 0.5, 0.52, 0.88), fill=colour)
        draw.ellipse(box(0.3, 0.84, 0.7, 0.93), fill=colour)
    elif category == "chair":
        for left in (0.28, 0.7):
            draw.rectangle(box(left, 0.6, left + 0.06, 0.94), fill=colour)
    elif category == "shoe":
        draw.rectangle(box(0.11, 0.72, 0.93, 0.8), fill=colour)


def _cloth(pattern: str, colour: Colour, size: int) -> Image.Image:
    cloth = Image.new("RGB", (size, size), colour)
    draw = ImageDraw.Draw(cloth)
    light, step = _shade(colour, 1.7), size // 12
    if pattern == "striped":
        for top in range(0, size, step):
            draw.rectangle((0, top, size, top + step // 2), fill=light)
    elif pattern == "dotted":
        for row, top in enumerate(range(0, size, step)):
            for left in range(row % 2 * step // 2, size, step):
                draw.ellipse((left, top, left + step // 2, top + step // 2), fill=light)
    elif pattern == "checked":
        for row, top in enumerate(range(0, size, step)):
            for left in range(row % 2 * step, size, 2 * step):
                draw.rectangle((left, top, left + step - 1, top + step - 1), fill=light)
    # Light from the left gives it a body.
    shadow = Image.linear_gradient("L").rotate(90).resize((size, size)).point(lambda value: 150 + value * 105 // 255)
    return ImageChops.multiply(cloth, shadow.convert("RGB"))


def _background(chance: Random, size: int) -> Image.Image:
    base = chance.randint(186, 240)
    tint = tuple(base + chance.randint(-14, 14) for _ in "rgb")
    wall = Image.new("RGB", (size, size), (tint[0], tint[1], tint[2]))
    floor = int(size * chance.uniform(0.62, 0.82))
    ImageDraw.Draw(wall).rectangle((0, floor, size, size), fill=_shade((tint[0], tint[1], tint[2]), 0.88))
    return wall.filter(ImageFilter.GaussianBlur(size / 80))


def _paste_with_shadow(scene: Image.Image, thing: Image.Image, corner: tuple[int, int]) -> None:
    shape = thing.getchannel("A")
    blur, drop = scene.width // 50, scene.width // 40
    shadow = Image.new("L", scene.size, 0)
    shadow.paste(shape.point(lambda value: value * 2 // 5), (corner[0] + drop, corner[1] + drop))
    scene.paste((40, 40, 48), mask=shadow.filter(ImageFilter.GaussianBlur(blur)))
    scene.paste(thing, corner, mask=shape)


def _shade(colour: Colour, factor: float) -> Colour:
    """Darken a colour (factor below 1), or move it towards white (above 1)."""
    if factor <= 1:
        red, green, blue = (int(value * factor) for value in colour)
    else:
        red, green, blue = (int(value + (255 - value) * (factor - 1)) for value in colour)
    return red, green, blue
