"""The query of the page, read from and written to the query string of its URL."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, TypeVar
from urllib.parse import urlencode

from lookalike.schema.errors import BadFilter, BadQuery
from lookalike.schema.filters.ast import Condition, Filter, Scalar, check_filter_size
from lookalike.serve.api.parameters import describe_repeated
from lookalike.serve.api.redaction import reject_location_filters

Bound = Literal["min", "max"]
QueryPart = Literal["image", "text", "product"]

_SINGLE = ("image", "text", "product", "offset")
_TRACKING = re.compile(r"(utm|mc|mtm|pk|hsa)_.*|_.*|.*clk?id|[gw]braid|srsltid|igshid|ref")
"""What newsletters, advertisements and social networks add to links."""

_CHOICE_PREFIX = "f"
_MAX_CHOICES = 200
_OPERATORS = {"min": ">=", "max": "<="}


@dataclass(frozen=True, slots=True)
class PageQuery:
    """What the page searches for, and its filters. Empty fields are left out of the URL.

    `image` is the name of an uploaded image. `choices` are pairs of column and value; a product matches if it has one
    of the values chosen in each column. `bounds` are triples of column, "min" or "max", and the number as it was typed.
    `unknown` are the fields of the URL or form that mean nothing here.
    """

    image: str = ""
    text: str = ""
    product: str = ""
    choices: tuple[tuple[str, str], ...] = ()
    bounds: tuple[tuple[str, str, str], ...] = ()
    offset: int = 0
    unknown: tuple[str, ...] = ()

    @classmethod
    def parse(cls, fields: Iterable[tuple[str, str]]) -> "PageQuery":
        """Read the fields of a query string or a form. Raises BadFilter for too many, BadQuery for one given twice."""
        values: dict[str, str] = {}
        unknown: dict[str, None] = {}
        choices: dict[tuple[str, str], None] = {}
        bounds: dict[tuple[str, str], str] = {}
        for name, value in fields:
            prefix, dot, column = name.partition(".")
            if dot and column and prefix == _CHOICE_PREFIX:
                choices.update({(column, value): None} if value else {})
            elif dot and column and prefix in _OPERATORS:
                _set_once(bounds, (column, prefix), value.strip(), name)
            elif name in _SINGLE:
                _set_once(values, name, value.strip(), name)
            elif not _TRACKING.fullmatch(name):
                unknown[name] = None
            if len(choices) + len(bounds) > _MAX_CHOICES:
                raise BadFilter(f"more than {_MAX_CHOICES} choices are too many; leave some out")
        offset = values.get("offset", "0")
        if not _is_offset(offset):
            unknown[f"offset={offset}"] = None
        return cls(
            image=values.get("image", ""),
            text=values.get("text", ""),
            product=values.get("product", ""),
            choices=tuple(choices),
            bounds=tuple((column, bound, value) for (column, bound), value in bounds.items()),
            offset=int(offset) if _is_offset(offset) else 0,
            unknown=tuple(unknown),
        )

    @property
    def has_parts(self) -> bool:
        """Whether there is an image, text or product to search with."""
        return bool(self.image or self.text or self.product)

    @property
    def is_filtered(self) -> bool:
        """Whether there are filters."""
        return bool(self.choices or self.bounds)

    @property
    def where(self) -> Filter:
        """The filter. Raises BadFilter."""
        columns = dict.fromkeys(column for column, _ in self.choices)
        choices = [Condition(column, "in", _scalars(self.chosen_values(column))) for column in columns]
        bounds = [
            Condition(column, _OPERATORS[bound], (_parse_number(bound, column, text),))
            for column, bound, text in self.bounds
        ]
        return reject_location_filters(check_filter_size((*choices, *bounds)))

    @property
    def url(self) -> str:
        """The URL of the page with this query."""
        parts = [("image", self.image), ("text", self.text), ("product", self.product)]
        fields = [
            *((name, value) for name, value in parts if value),
            *((f"{_CHOICE_PREFIX}.{column}", value) for column, value in self.choices),
            *((f"{bound}.{column}", value) for column, bound, value in self.bounds),
            *([("offset", str(self.offset))] if self.offset else []),
        ]
        return f"/?{urlencode(fields)}" if fields else "/"

    def chosen_values(self, column: str) -> list[str]:
        """Return the values that are chosen in a column."""
        return [value for name, value in self.choices if name == column]

    def typed_bound(self, column: str, bound: Bound) -> str:
        """Return the minimum or maximum of a column as it was typed, empty if there is none."""
        return next((text for name, kind, text in self.bounds if (name, kind) == (column, bound)), "")

    def similar_to(self, product_id: str) -> "PageQuery":
        """Search for products similar to this one, with the same filters."""
        return replace(self, image="", text="", product=product_id, offset=0)

    def without(self, part: QueryPart) -> "PageQuery":
        """Drop one part of the query."""
        match part:
            case "image":
                return replace(self, image="", offset=0)
            case "text":
                return replace(self, text="", offset=0)
            case "product":
                return replace(self, product="", offset=0)

    def without_filters(self) -> "PageQuery":
        """Drop all filters."""
        return replace(self, choices=(), bounds=(), offset=0)

    def at_offset(self, offset: int) -> "PageQuery":
        """Go to another page of results."""
        return replace(self, offset=offset)


Key = TypeVar("Key")


def _set_once(values: dict[Key, str], key: Key, value: str, name: str) -> None:
    """Set a value unless it is empty. Raises BadQuery for a second one."""
    if value and key in values:
        raise BadQuery(describe_repeated("parameter", name, 2))
    if value:
        values[key] = value


def _is_offset(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


def _scalars(values: Iterable[str]) -> tuple[Scalar, ...]:
    """Read "true" and "false" both as a boolean and as text, because a URL does not tell which one is meant."""
    scalars: list[Scalar] = []
    for value in values:
        if value in ("true", "false"):
            scalars.append(value == "true")
        scalars.append(value)
    return tuple(scalars)


def _parse_number(bound: str, column: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise BadFilter(f"{bound}.{column}: {text!a} is not a number") from None
