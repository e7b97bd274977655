"""Why a filter cannot match: its column does not exist, or never holds a value of the kind it is compared with."""

from collections.abc import Iterable
from typing import Any

from lookalike.schema.filters.ast import Condition
from lookalike.schema.filters.expression import COLUMNS
from lookalike.schema.spelling import find_nearest

KINDS: dict[type, str] = {
    str: "text",
    bool: "boolean",
    int: "number",
    float: "number",
    list: "list",
    dict: "object",
}
_PLURALS = {"text": "text", "number": "numbers", "boolean": "true or false", "list": "lists", "object": "objects"}
_MAX_SHOWN = 30
"""How many columns an error message lists."""


def kinds_of(values: Iterable[Any]) -> set[str]:
    """Return the kinds that some values have."""
    return {KINDS[type(value)] for value in values}


def list_matching_kinds(condition: Condition) -> frozenset[str]:
    """Return the kinds of values that a condition can match; `exists` matches all."""
    if condition.operator == "exists":
        return frozenset(_PLURALS)
    if condition.operator == "contains":
        return frozenset({"list"})
    if condition.operator in ("startswith", "like"):
        return frozenset({"text"})
    kinds = frozenset(KINDS[type(value)] for value in condition.values)
    # `price < 50` compares numbers, although a typed 50 may also be the text "50": see expression.py.
    is_ordering = condition.operator in ("<", "<=", ">", ">=")
    return frozenset({"number"}) if is_ordering and "number" in kinds else kinds


def describe_unknown_column(column: str, columns: Iterable[str]) -> str:
    """Say that no product has a column; name the nearest one, and list those that there are."""
    names = sorted(columns)
    nearest = find_nearest(column, names)
    suggestion = f"; did you mean {nearest!r}?" if nearest else ""
    shown = ", ".join(names[:_MAX_SHOWN]) + (f" and {len(names) - _MAX_SHOWN} more" if len(names) > _MAX_SHOWN else "")
    return f"no product has a column {column!r}{suggestion} (metadata: {shown or 'none'}; always: {', '.join(COLUMNS)})"


def describe_mismatch(condition: Condition, kinds: Iterable[str]) -> str:
    """Say that a condition cannot match the kinds of values that its column holds."""
    column, operator, kinds = condition.column, condition.operator, sorted(kinds)
    holds = f"{column} holds {' and '.join(_PLURALS[kind] for kind in kinds)}"
    if operator == "contains":
        advice = f'; write {column} like "%{condition.values[0]}%"' if "text" in kinds else ""
        return f"{holds}, and `contains` looks for an element of a list{advice}"
    if operator in ("startswith", "like"):
        return f"{holds}, and `{operator}` matches text"
    advice = f"; write {column} contains {condition.values[0]}" if "list" in kinds else ""
    return f"{holds}, which cannot be compared with {condition.values[0]!r}{advice}"
