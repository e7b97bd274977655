"""The products of the sample catalogue: every category in every colour."""

from dataclasses import dataclass
from random import Random

Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""

CATEGORIES = ("mug", "bottle", "shirt", "bag", "lamp", "chair", "shoe", "hat")
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


@dataclass(frozen=True, slots=True)
class Product:
    """One product of the sample catalogue: a category, a colour and a pattern by name."""

    category: str
    colour: str
    pattern: str

    @property
    def product_id(self) -> str:
        """For example `red-striped-mug`."""
        return f"{self.colour}-{self.pattern}-{self.category}"

    @property
    def title(self) -> str:
        """For example `Red striped mug`."""
        return self.product_id.replace("-", " ").capitalize()

    @property
    def price(self) -> float:
        """From 5 to 89.50 in steps of 50 cents, always the same for a product."""
        return Random(self.product_id).randrange(10, 180) / 2  # noqa: S311  not a secret


def products() -> list[Product]:
    """List the catalogue: each category in each colour, with the patterns in turn."""
    return [
        Product(category, colour, PATTERNS[(row + column) % len(PATTERNS)])
        for row, category in enumerate(CATEGORIES)
        for column, colour in enumerate(COLOURS)
    ]


def query_products() -> list[Product]:
    """List the products to search for: one of each category, each in another colour."""
    catalogue = products()
    return [catalogue[row * len(COLOURS) + row % len(COLOURS)] for row in range(len(CATEGORIES))]
