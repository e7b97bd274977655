"""Count the values of each metadata column by type, while the images of a run pass."""

import re
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

from lookalike.schema.number_advice import FORMATS, is_number
from lookalike.schema.numbers import ValueFormat
from lookalike.schema.product import ProductImage

MAX_EXAMPLES = 4
"""Distinct texts that are kept of a column for each way in which they can be read."""

TYPE_NAMES: dict[type, str] = {str: "text", int: "int", float: "float", bool: "bool", list: "list", dict: "object"}
_HAS_FRACTION = 1 << len(FORMATS)
# A quick look, which most texts do not pass: they have no digit near their beginning, or words after it.
_LOOKS_LIKE_NUMBER = re.compile(r"[^0-9]{0,6}[0-9][0-9.,'’\s]*[^0-9]{0,6}")


class Example(NamedTuple):
    """A value of a column, and the first product that has it."""

    value: Any
    product_id: str
    location: str


@dataclass(slots=True)
class Column:
    """The values of one column: how many there are of each type, and how its texts can be read."""

    types: Counter[type] = field(default_factory=Counter)
    firsts: dict[type, Example] = field(default_factory=dict)
    """The first value of each type."""

    texts: Counter[int] = field(default_factory=Counter)
    """Texts by how they can be read: see `classify_text`."""

    examples: dict[int, dict[str, Example]] = field(default_factory=dict)
    """The first texts of each kind of `texts`."""

    @property
    def type_name(self) -> str:
        """The types of the values, such as "float", or "list or text"; int and float together are float."""
        names = {TYPE_NAMES[kind] for kind in self.types}
        return " or ".join(sorted(names - {"int"} if "float" in names else names))

    @property
    def numbers(self) -> int:
        """How many values are numbers, not texts of them."""
        return self.types[int] + self.types[float]

    def count_numbers(self, index: int) -> int:
        """Count the numbers, including the texts that format `index` of FORMATS reads as numbers."""
        return self.numbers + sum(count for mask, count in self.texts.items() if mask >> index & 1)

    @property
    def has_fractions(self) -> bool:
        """Whether a number, or a text that can be read as one, has a fraction."""
        return bool(self.types[float]) or any(mask & _HAS_FRACTION for mask in self.texts)

    def list_examples(self, index: int, *, numbers: bool) -> list[Example]:
        """List texts that format `index` reads as numbers, or does not; `None` of them is left out below four."""
        found = [list(texts.values()) for mask, texts in self.examples.items() if bool(mask >> index & 1) == numbers]
        return [example for examples in found for example in examples]


class ColumnTally:
    """Counts the values of every column. Used by one thread at a time."""

    def __init__(self) -> None:
        self.columns: dict[str, Column] = {}

    def add(self, image: ProductImage) -> None:
        """Count the values of an image."""
        for name, value in image.metadata.items():
            column = self.columns.get(name)
            if column is None:
                column = self.columns[name] = Column()
            kind = type(value)
            if kind not in column.types:
                column.firsts[kind] = Example(value, image.product_id, image.location)
            column.types[kind] += 1
            if kind is str:
                _add_text(column, value, image)

    def list_types(self) -> dict[str, str]:
        """List the columns, each with the types of its values."""
        return {name: column.type_name for name, column in sorted(self.columns.items())}


def _add_text(column: Column, text: str, image: ProductImage) -> None:
    mask = classify_text(text) if len(text) < 40 and _LOOKS_LIKE_NUMBER.fullmatch(text) else 0
    column.texts[mask] += 1
    examples = column.examples.get(mask)
    if examples is None:
        examples = column.examples[mask] = {}
    if len(examples) < MAX_EXAMPLES and text not in examples:
        examples[text] = Example(text, image.product_id, image.location)


@lru_cache(10_000)
def classify_text(text: str) -> int:
    """Return which of FORMATS read a text as a number, as bits; and a bit more if it has a fraction."""
    readers = [index for index, values in enumerate(FORMATS) if is_number(text, values)]
    mask = sum(1 << index for index in readers)
    return mask | _HAS_FRACTION if readers and _has_fraction(text, FORMATS[readers[0]]) else mask


def _has_fraction(text: str, values: ValueFormat) -> bool:
    return "." in values.to_plain_number(text)
