r"""Filters over metadata: what they are, and what they mean.

A filter is a tuple of clauses that all have to hold: conditions, alternatives (`AnyOf`) and negations (`Not`). What
conditions mean, on Milvus Lite and on a server alike:

=, !=, <, <=, >, >=   compare with one value; text with text (by code point), numbers with numbers
in, not in            equal to one of several values, or to none of them
contains              a list that has the value as an element
startswith            text that begins with the value
like                  text that matches a pattern, in which % stands for any text, and \% for itself
exists                the product has the column

A product without the column matches none of them: `price != 5` means "has a price, and it is not 5". `Not` is the
plain opposite: "not price = 5" holds for products without a price too.

They are read from words by schema.filter_words and from JSON by schema.filter_json, and written for Milvus by
schema.expressions.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Union

from lookalike.schema.errors import BadFilter

Scalar = str | int | float | bool

OPERATORS = ("not in", "in", "contains", "startswith", "like", "exists", "!=", "<=", ">=", "=", "<", ">")

MAX_CONDITIONS = 100
MAX_DEPTH = 8
MAX_VALUES = 1_000
"""In all conditions together: each is a comparison for every row."""

MAX_CHARACTERS = 60_000


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition on one column; `values` are alternatives, any of which may hold.

    A word typed on the command line may mean a number or a text: `size = 42` is (42, "42").
    """

    column: str
    operator: str
    values: tuple[Scalar, ...] = ()

    def __post_init__(self) -> None:
        if self.operator not in OPERATORS:
            raise BadFilter(f"{self.operator!r} is no filter operator; take one of {', '.join(OPERATORS)}")
        if not self.column:
            raise BadFilter("a filter needs the name of a column before its operator")
        if bool(self.values) == (self.operator == "exists"):
            raise BadFilter(f"{self.column} {self.operator}: the wrong number of values ({len(self.values)})")
        if len(self.values) > MAX_VALUES:
            raise BadFilter(f"{self.column} {self.operator}: {len(self.values)} values are too many ({MAX_VALUES})")
        if self.operator in ("startswith", "like") and not all(isinstance(value, str) for value in self.values):
            raise BadFilter(f"{self.column} {self.operator} {self.values[0]!r}: it takes text")
        for value in (self.column, *self.values):
            if not _can_be_sent(value):
                raise BadFilter(f"{self.column!a} {self.operator} {value!a}: Milvus has no place for such a value")
        if sum(len(str(value)) for value in self.values) > MAX_CHARACTERS:
            raise BadFilter(f"{self.column} {self.operator}: the values are longer than {MAX_CHARACTERS} characters")


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Alternatives, one of which has to hold."""

    alternatives: tuple["Filter", ...]

    def __post_init__(self) -> None:
        if not all(self.alternatives) or not self.alternatives:
            raise BadFilter("alternatives, of which one is empty or there is none: say what each asks for")


@dataclass(frozen=True, slots=True)
class Not:
    """What must not hold."""

    negated: "Filter"

    def __post_init__(self) -> None:
        if not self.negated:
            raise BadFilter("a negation of nothing would match nothing; say what must not hold")


Clause = Union[Condition, AnyOf, Not]  # noqa: UP007  `|` cannot name what comes later
Filter = tuple[Clause, ...]


def check_filter_size(where: Filter) -> Filter:
    """Return a filter that Milvus answers in time, or raise BadFilter: thousands of conditions hold a server."""
    found = list(iter_conditions(where))
    values = sum(len(condition.values) for condition in found)
    if len(found) > MAX_CONDITIONS:
        raise BadFilter(f"{len(found)} conditions are too many; {MAX_CONDITIONS} is the limit")
    if values > MAX_VALUES:
        raise BadFilter(f"{values} values in one filter are too many; {MAX_VALUES} is the limit")
    if sum(len(str(value)) for condition in found for value in condition.values) > MAX_CHARACTERS:
        raise BadFilter(f"the values of the filter are longer than {MAX_CHARACTERS} characters")
    return where


def iter_conditions(where: Filter, depth: int = 1) -> Iterator[Condition]:
    """All conditions of a filter. Raises BadFilter where it is nested too deep."""
    if depth > MAX_DEPTH:
        raise BadFilter(f"a filter may be nested {MAX_DEPTH} deep, not more")
    for clause in where:
        if isinstance(clause, Condition):
            yield clause
        elif isinstance(clause, Not):
            yield from iter_conditions(clause.negated, depth + 1)
        else:
            for alternative in clause.alternatives:
                yield from iter_conditions(alternative, depth + 1)


def _can_be_sent(value: Scalar) -> bool:
    """UTF-8 has no lone surrogates, JSON neither infinity nor NaN, Milvus no integers past 64 bits."""
    if isinstance(value, str):
        return not any("\ud800" <= character <= "\udfff" for character in value)
    # A server reads -2**63 as the negative of a number that is one too large.
    return math.isfinite(value) if isinstance(value, float) else -(2**63) < value < 2**63
