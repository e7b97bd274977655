"""What is asked on the page, as the query string of its address has it; empty fields are not part of it."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal
from urllib.parse import urlencode

from lookalike.schema.errors import BadFilter
from lookalike.schema.filters.ast import Condition, Filter, Scalar, check_filter_size
from lookalike.serve.api.redaction import reject_location_filters

Bound = Literal["min", "max"]

_CHOICE, _BOUNDS = "f", ("min", "max")
_MOST_CHOICES = 200
_OPERATORS = {"min": ">=", "max": "<="}


@dataclass(frozen=True, slots=True)
class PageQuery:
    """A question as a person puts it.

    `image` is the name of an uploaded one; `choices` are columns with a value each, several of one column are
    alternatives; `bounds` are columns with "min" or "max" and what was typed.
    """

    image: str = ""
    text: str = ""
    product: str = ""
    choices: tuple[tuple[str, str], ...] = ()
    bounds: tuple[tuple[str, str, str], ...] = ()
    offset: int = 0

    @classmethod
    def read(cls, fields: Iterable[tuple[str, str]]) -> "PageQuery":
        """Read a query string or a form; what is not known is left alone. Raises BadFilter for too much."""
        told: dict[str, str] = {}
        choices: dict[tuple[str, str], None] = {}
        bounds: dict[tuple[str, str], str] = {}
        for name, value in fields:
            kind, dot, column = name.partition(".")
            if dot and column and value and kind == _CHOICE:
                choices[column, value] = None
            elif dot and column and value.strip() and kind in _BOUNDS:
                bounds[column, kind] = value.strip()
            else:
                told[name] = value.strip()
            if len(choices) + len(bounds) > _MOST_CHOICES:
                raise BadFilter(f"more than {_MOST_CHOICES} choices are too many; leave some out")
        return cls(
            image=told.get("image", ""),
            text=told.get("text", ""),
            product=told.get("product", ""),
            choices=tuple(choices),
            bounds=tuple((column, kind, value) for (column, kind), value in bounds.items()),
            offset=_offset(told.get("offset", "")),
        )

    @property
    def is_question(self) -> bool:
        """Whether there is something to be like."""
        return bool(self.image or self.text or self.product)

    @property
    def is_filtered(self) -> bool:
        """Whether only some products are wanted."""
        return bool(self.choices or self.bounds)

    @property
    def where(self) -> Filter:
        """The filter. Raises BadFilter."""
        columns = dict.fromkeys(column for column, _ in self.choices)
        chosen = [Condition(column, "in", _readings(self.chosen(column))) for column in columns]
        limits = [
            Condition(column, _OPERATORS[kind], (_number(kind, column, text),)) for column, kind, text in self.bounds
        ]
        return reject_location_filters(check_filter_size((*chosen, *limits)))

    @property
    def address(self) -> str:
        """Where this is answered."""
        named = [("image", self.image), ("text", self.text), ("product", self.product)]
        fields = [
            *((name, value) for name, value in named if value),
            *((f"{_CHOICE}.{column}", value) for column, value in self.choices),
            *((f"{kind}.{column}", value) for column, kind, value in self.bounds),
            *([("offset", str(self.offset))] if self.offset else []),
        ]
        return f"/?{urlencode(fields)}" if fields else "/"

    def chosen(self, column: str) -> list[str]:
        """The values of a column that are wanted."""
        return [value for name, value in self.choices if name == column]

    def bound(self, column: str, kind: Bound) -> str:
        """What was typed as the least or the most of a column."""
        return next((text for name, which, text in self.bounds if (name, which) == (column, kind)), "")

    def like(self, product_id: str) -> "PageQuery":
        """Ask for more like a product, among the same ones."""
        return replace(self, image="", text="", product=product_id, offset=0)

    def without(self, part: str) -> "PageQuery":
        """Ask without one of image, text and product."""
        return replace(self, offset=0, **{part: ""})  # type: ignore[arg-type]  # fields by name, all of them text

    def anywhere(self) -> "PageQuery":
        """Ask for the same among all products."""
        return replace(self, choices=(), bounds=(), offset=0)

    def further(self, offset: int) -> "PageQuery":
        """Ask for another page."""
        return replace(self, offset=offset)


def _offset(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def _readings(values: Iterable[str]) -> tuple[Scalar, ...]:
    """A choice is a text, or true or false: an address does not tell them apart."""
    return tuple(r for value in values for r in ((value == "true", value) if value in ("true", "false") else (value,)))


def _number(kind: str, column: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise BadFilter(f"{kind}.{column}: {text!a} is not a number") from None
