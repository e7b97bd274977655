"""Keeps the locations of a collection's images out of responses."""

from lookalike.schema.errors import BadFilter
from lookalike.schema.filters.ast import Filter, iter_conditions

_LOCATIONS = ("image", "source")
_PARTIAL_COMPARISONS = ("<", "<=", ">", ">=", "startswith", "like")


def reject_location_filters(where: Filter) -> Filter:
    """Return the filter. Raises BadFilter for one that compares a location in part: that reveals it step by step."""
    for condition in iter_conditions(where):
        if condition.column in _LOCATIONS and condition.operator in _PARTIAL_COMPARISONS:
            column = condition.column
            raise BadFilter(f"{column} {condition.operator} …: a service compares {column} as a whole; use = or in")
    return where


def redact_source(source: str) -> str:
    """Return the last part of a source's name, without the folders above it."""
    return source.rstrip("/").rpartition("/")[2] or source
