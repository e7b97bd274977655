"""Count the values of each metadata column by type, while the images of a run pass."""

import re
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

from lookalike.schema.number_advice import FORMATS, is_number
from lookalike.schema.numbers import PLAIN, ValueFormat
from lookalike.schema.product import ProductImage

MAX_EXAMPLES = 4
"""Distinct texts of a column that serve as examples, for each way in which they can be read."""

_MAX_SHAPES = 1_000
_MIN_PROSE = 1_000
TYPE_NAMES: dict[type, str] = {str: "text", int: "int", float: "float", bool: "bool", list: "list", dict: "object"}
_ALL_FORMATS = (1 << len(FORMATS)) - 1
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

    is_prose: bool = False
    """Whether so many texts are no numbers that the next ones are not looked at: that would take time for nothing."""

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
        return self.numbers + sum(count for mask, count in self.texts.items() if mask & 1 << index)

    @property
    def has_fractions(self) -> bool:
        """Whether a number, or a text that can be read as one, has a fraction."""
        return bool(self.types[float]) or any(mask & _HAS_FRACTION for mask in self.texts)

    def list_examples(self, index: int, *, numbers: bool) -> list[Example]:
        """List texts that format `index` reads as numbers, or does not: the first of them, or all if they are few."""
        found = [list(texts.values()) for mask, texts in self.examples.items() if bool(mask & 1 << index) == numbers]
        return [example for examples in found for example in examples]


@dataclass(slots=True)
class _Shape:
    """Images with the same columns of the same types: how many they are, and which columns are text."""

    types: list[tuple[Column, type]]
    texts: list[tuple[str, Column]]
    count: int = 0


class ColumnTally:
    """Counts the values of every column. Used by one thread at a time.

    Most images of a source have the same shape, so that an image costs one look-up, and not one for each of its values.
    """

    def __init__(self) -> None:
        self._columns: dict[str, Column] = {}
        self._shapes: dict[tuple[object, ...], _Shape] = {}

    def add(self, image: ProductImage) -> None:
        """Count the values of an image."""
        metadata = image.metadata
        key = (*metadata, *map(type, metadata.values()))
        try:
            shape = self._shapes[key]
        except KeyError:
            shape = self._shapes[key] = self._make_shape(image)
        shape.count += 1
        for name, column in shape.texts:
            if not column.is_prose:
                _add_text(column, metadata[name], image)

    @property
    def columns(self) -> dict[str, Column]:
        """The columns by name."""
        self._add_up()
        return dict(sorted(self._columns.items()))

    def list_types(self) -> dict[str, str]:
        """List the columns, each with the types of its values."""
        return {name: column.type_name for name, column in self.columns.items()}

    def _make_shape(self, image: ProductImage) -> _Shape:
        if len(self._shapes) == _MAX_SHAPES:
            self._add_up()
            self._shapes.clear()
        shape = _Shape([], [])
        for name, value in image.metadata.items():
            column, kind = self._columns.setdefault(name, Column()), type(value)
            column.firsts.setdefault(kind, Example(value, image.product_id, image.location))
            shape.types.append((column, kind))
            if kind is str:
                shape.texts.append((name, column))
        return shape

    def _add_up(self) -> None:
        for shape in self._shapes.values():
            for column, kind in shape.types:
                column.types[kind] += shape.count
            shape.count = 0


def _add_text(column: Column, text: str, image: ProductImage) -> None:
    mask = classify_text(text) if len(text) < 40 and _LOOKS_LIKE_NUMBER.fullmatch(text) else 0
    column.texts[mask] += 1
    if not mask and column.texts[0] > _MIN_PROSE and len(column.examples[0]) > 1:
        column.is_prose = column.texts[0] > column.texts.total() / 2
    examples = column.examples.get(mask)
    if examples is None:
        examples = column.examples[mask] = {}
    if len(examples) < MAX_EXAMPLES and text not in examples:
        examples[text] = Example(text, image.product_id, image.location)


@lru_cache(10_000)
def classify_text(text: str) -> int:
    """Return which of FORMATS read a text as a number, as bits; and a bit more if it has a fraction."""
    if text.isdecimal() and text.isascii():  # such as an EAN; all formats read it alike
        return _ALL_FORMATS if is_number(text, PLAIN) else 0
    readers = [index for index, values in enumerate(FORMATS) if is_number(text, values)]
    mask = sum(1 << index for index in readers)
    return mask | _HAS_FRACTION if readers and _has_fraction(text, FORMATS[readers[0]]) else mask


def _has_fraction(text: str, values: ValueFormat) -> bool:
    return "." in values.to_plain_number(text)
