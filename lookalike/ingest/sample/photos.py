"""Draw photos of the sample products: each from its own angle, distance, light and background."""

from functools import lru_cache
from random import Random

from PIL import Image, ImageChops, ImageDraw, ImageEnhance, ImageFilter

from lookalike.ingest.sample.product import CATEGORIES, COLOURS, Colour, Product

SIDE = 320
"""Width and height of a photo in pixels."""

_SCALE = 2
"""Photos are drawn twice as large, then reduced: that smooths the edges."""

Point = tuple[float, float]

_OUTLINES: dict[str, list[Point]] = {
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
"""The outline of each category, on a square from 0 to 1."""


def photo(product: Product, view: int) -> Image.Image:
    """Draw one photo of a product, RGB, 320×320; another `view` is another photo of the same product."""
    random = Random(f"{product.product_id}/{view}")  # noqa: S311  not a secret
    size = SIDE * _SCALE
    cutout = _draw_product(product, size)
    side = int(size * random.uniform(0.72, 0.95))
    turned = cutout.resize((side, side), Image.Resampling.LANCZOS).rotate(
        random.uniform(-14, 14), Image.Resampling.BILINEAR, expand=True
    )
    scene = _draw_background(random, size)
    corner = tuple((size - turned.width) // 2 + random.randint(-size // 16, size // 16) for _ in "xy")
    _paste_with_shadow(scene, turned, (corner[0], corner[1]))
    lit = ImageEnhance.Brightness(scene).enhance(random.uniform(0.85, 1.12))
    return lit.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


@lru_cache(maxsize=len(CATEGORIES) * len(COLOURS))
def _draw_product(product: Product, size: int) -> Image.Image:
    """Draw a product on a transparent background: RGBA, size×size."""
    colour = COLOURS[product.colour]
    outline = Image.new("L", (size, size), 0)
    ImageDraw.Draw(outline).polygon([(x * size, y * size) for x, y in _OUTLINES[product.category]], fill=255)
    # Rounds the corners.
    outline = outline.filter(ImageFilter.GaussianBlur(size / 60)).point(lambda value: 255 if value > 127 else 0)
    cutout = Image.new("RGBA", (size, size), (0, 0, 0, 0))
    _draw_details(ImageDraw.Draw(cutout), product.category, size, _shade(colour, 0.62))
    cutout.paste(_draw_surface(product.pattern, colour, size), mask=outline)
    return cutout


def _draw_details(draw: ImageDraw.ImageDraw, category: str, size: int, colour: Colour) -> None:
    """Draw what is outside the outline, such as the handle of a mug."""

    def box(*corners: float) -> tuple[float, ...]:
        return tuple(corner * size for corner in corners)

    width = size // 22
    if category == "mug":
        draw.ellipse(box(0.55, 0.36, 0.84, 0.68), outline=colour, width=width)
    elif category == "bottle":
        draw.rectangle(box(0.41, 0.03, 0.59, 0.1), fill=colour)
    elif category == "bag":
        draw.arc(box(0.32, 0.14, 0.68, 0.66), 180, 360, fill=colour, width=width)
    elif category == "lamp":
        draw.rectangle(box(0.48, 0.5, 0.52, 0.88), fill=colour)
        draw.ellipse(box(0.3, 0.84, 0.7, 0.93), fill=colour)
    elif category == "chair":
        for left in (0.28, 0.7):
            draw.rectangle(box(left, 0.6, left + 0.06, 0.94), fill=colour)
    elif category == "shoe":
        draw.rectangle(box(0.11, 0.72, 0.93, 0.8), fill=colour)


def _draw_surface(pattern: str, colour: Colour, size: int) -> Image.Image:
    """Draw a pattern in a colour and a lighter one, shaded from left to right: RGB, size×size."""
    surface = Image.new("RGB", (size, size), colour)
    draw = ImageDraw.Draw(surface)
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
    # Light from the left makes it look solid.
    shadow = Image.linear_gradient("L").rotate(90).resize((size, size)).point(lambda value: 150 + value * 105 // 255)
    return ImageChops.multiply(surface, shadow.convert("RGB"))


def _draw_background(random: Random, size: int) -> Image.Image:
    """Draw a wall and a floor, blurred: RGB, size×size."""
    base = random.randint(186, 240)
    tint = tuple(base + random.randint(-14, 14) for _ in "rgb")
    wall = Image.new("RGB", (size, size), (tint[0], tint[1], tint[2]))
    floor = int(size * random.uniform(0.62, 0.82))
    ImageDraw.Draw(wall).rectangle((0, floor, size, size), fill=_shade((tint[0], tint[1], tint[2]), 0.88))
    return wall.filter(ImageFilter.GaussianBlur(size / 80))


def _paste_with_shadow(scene: Image.Image, cutout: Image.Image, corner: tuple[int, int]) -> None:
    shape = cutout.getchannel("A")
    blur, offset = scene.width // 50, scene.width // 40
    shadow = Image.new("L", scene.size, 0)
    shadow.paste(shape.point(lambda value: value * 2 // 5), (corner[0] + offset, corner[1] + offset))
    scene.paste((40, 40, 48), mask=shadow.filter(ImageFilter.GaussianBlur(blur)))
    scene.paste(cutout, corner, mask=shape)


def _shade(colour: Colour, factor: float) -> Colour:
    """Darken a colour (factor below 1), or move it towards white (above 1)."""
    if factor <= 1:
        red, green, blue = (int(value * factor) for value in colour)
    else:
        red, green, blue = (int(value + (255 - value) * (factor - 1)) for value in colour)
    return red, green, blue
