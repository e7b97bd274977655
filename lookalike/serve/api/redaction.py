"""What is not told over HTTP: where the pictures of a collection are."""

from lookalike.schema.errors import BadFilter
from lookalike.schema.filters.ast import Filter, conditions

_PLACES = ("image", "source")
_ORDERED = ("<", "<=", ">", ">=")


def without_places(where: Filter) -> Filter:
    """Return a filter that does not tell paths by halves. Raises BadFilter."""
    for condition in conditions(where):
        if condition.column in _PLACES and condition.operator in _ORDERED:
            raise BadFilter(f"{condition.column} {condition.operator} …: {condition.column} has no order here")
    return where


def source_name(source: str) -> str:
    """What a source is called, without the folders that lead to it."""
    return source.rstrip("/").rpartition("/")[2] or source
