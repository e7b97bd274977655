"""What is not told over HTTP: where the images of a collection are."""

from lookalike.schema.errors import BadFilter
from lookalike.schema.filters.ast import Filter, iter_conditions

_PLACES = ("image", "source")
_ORDERED = ("<", "<=", ">", ">=")


def reject_location_filters(where: Filter) -> Filter:
    """Return a filter that does not tell paths by halves. Raises BadFilter."""
    for condition in iter_conditions(where):
        if condition.column in _PLACES and condition.operator in _ORDERED:
            raise BadFilter(f"{condition.column} {condition.operator} …: {condition.column} has no order here")
    return where


def redact_source(source: str) -> str:
    """What a source is called, without the folders that lead to it."""
    return source.rstrip("/").rpartition("/")[2] or source
