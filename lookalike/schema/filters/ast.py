r"""The classes that make up a filter, and what they mean.

A filter is a tuple of clauses that must all hold: conditions, alternatives (`AnyOf`) and negations (`Not`). A condition
means the same on Milvus Lite and on a server:

=, !=, <, <=, >, >=   compare with one value; text with text (by code point), numbers with numbers
in, not in            equal to one of several values, or to none of them
contains              a list that has the value as an element
startswith            text that begins with the value
like                  text that matches a pattern, in which % stands for any text, and \% for itself
exists                the product has the column

A product without the column matches no condition: `price != 5` means "has a price, and it is not 5". `Not` is the
logical opposite: "not price = 5" holds for products without a price too.
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
"""In all conditions of a filter: Milvus compares each value with every row."""

MAX_CHARACTERS = 60_000
MAX_COLUMN = 10_000
"""Characters of the name of a column; error messages repeat it."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition on one column. With several `values`, it holds if it holds for one of them.

    A word on the command line may be a number or a text: `size = 42` has the values (42, "42").
    """

    column: str
    operator: str
    values: tuple[Scalar, ...] = ()

    def __post_init__(self) -> None:
        if self.operator not in OPERATORS:
            raise BadFilter(f"{self.operator!r} is no filter operator; use one of {', '.join(OPERATORS)}")
        if not self.column:
            raise BadFilter("a filter needs the name of a column before its operator")
        if bool(self.values) == (self.operator == "exists"):
            raise BadFilter(f"{self.column} {self.operator}: the wrong number of values ({len(self.values)})")
        if len(self.column) > MAX_COLUMN:
            raise BadFilter(
                f"the name of a column has {len(self.column)} characters, which is too long; {MAX_COLUMN} is the limit"
            )
        if len(self.values) > MAX_VALUES:
            raise BadFilter(
                f"{self.column} {self.operator}: {len(self.values)} values are too many; {MAX_VALUES} is the limit"
            )
        if self.operator in ("startswith", "like") and not all(isinstance(value, str) for value in self.values):
            raise BadFilter(f"{self.column} {self.operator} {self.values[0]!r}: it takes text")
        for value in (self.column, *self.values):
            if not _is_storable(value):
                raise BadFilter(f"{self.column!a} {self.operator} {value!a}: Milvus cannot store such a value")
        if sum(len(str(value)) for value in self.values) > MAX_CHARACTERS:
            raise BadFilter(f"{self.column} {self.operator}: the values are longer than {MAX_CHARACTERS} characters")


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Alternatives, at least one of which must hold."""

    alternatives: tuple["Filter", ...]

    def __post_init__(self) -> None:
        if not all(self.alternatives) or not self.alternatives:
            raise BadFilter("alternatives of which one is empty, or none at all; write a condition in each")


@dataclass(frozen=True, slots=True)
class Not:
    """A negation: the filter in it must not hold."""

    negated: "Filter"

    def __post_init__(self) -> None:
        if not self.negated:
            raise BadFilter("a negation of nothing would match nothing; write the condition that must not hold")


Clause = Union[Condition, AnyOf, Not]  # noqa: UP007  `|` does not take a forward reference
Filter = tuple[Clause, ...]


def check_filter_size(where: Filter) -> Filter:
    """Return the filter, or raise BadFilter when it is too large: thousands of conditions block a server."""
    conditions = list(iter_conditions(where))
    values = sum(len(condition.values) for condition in conditions)
    if len(conditions) > MAX_CONDITIONS:
        raise BadFilter(f"{len(conditions)} conditions are too many; {MAX_CONDITIONS} is the limit")
    if values > MAX_VALUES:
        raise BadFilter(f"{values} values in one filter are too many; {MAX_VALUES} is the limit")
    if sum(len(str(value)) for condition in conditions for value in condition.values) > MAX_CHARACTERS:
        raise BadFilter(f"the values of the filter are longer than {MAX_CHARACTERS} characters")
    return where


def iter_conditions(where: Filter, depth: int = 1) -> Iterator[Condition]:
    """Yield all conditions of a filter. Raises BadFilter when it is nested too deep."""
    if depth > MAX_DEPTH:
        raise BadFilter(f"the filter is nested too deep; {MAX_DEPTH} levels is the limit")
    for clause in where:
        if isinstance(clause, Condition):
            yield clause
        elif isinstance(clause, Not):
            yield from iter_conditions(clause.negated, depth + 1)
        else:
            for alternative in clause.alternatives:
                yield from iter_conditions(alternative, depth + 1)


def _is_storable(value: Scalar) -> bool:
    """UTF-8 has no lone surrogates, JSON no infinity and no NaN, Milvus no integers of more than 64 bits."""
    if isinstance(value, str):
        return not any("\ud800" <= character <= "\udfff" for character in value)
    # Not -2**63: a server reads it as minus 2**63, and refuses 2**63 as too large.
    return math.isfinite(value) if isinstance(value, float) else -(2**63) < value < 2**63
