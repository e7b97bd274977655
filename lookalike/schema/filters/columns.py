"""Whether a filter can match: its columns exist and hold values of its kinds. Without this, a typo finds nothing."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from lookalike.schema.errors import BadFilter
from lookalike.schema.filters.ast import Condition, Filter, Scalar, iter_conditions
from lookalike.schema.filters.expression import COLUMNS

ColumnKinds = dict[str, set[str]]
"""The kinds of values that each metadata column has had: text, number, boolean, list or object."""

_KINDS: dict[type, str] = {
    str: "text",
    bool: "boolean",
    int: "number",
    float: "number",
    list: "list",
    dict: "object",
}
_PLURALS = {"text": "text", "number": "numbers", "boolean": "true or false", "list": "lists", "object": "objects"}
_SHOWN = 30
"""Columns that a message lists."""


def add_kinds(columns: ColumnKinds, metadata: Mapping[str, Any]) -> bool:
    """Note the kinds of the values of one product; return whether one of them is new."""
    is_new = False
    for name, value in metadata.items():
        kinds = columns.setdefault(name, set())
        kind = _KINDS[type(value)]
        if kind not in kinds:
            kinds.add(kind)
            is_new = True
    return is_new


def check_columns(where: Filter, columns: ColumnKinds) -> None:
    """Raise BadFilter for a column that no product has ever had, and for a value of another kind than its column."""
    for condition in iter_conditions(where):
        if condition.column in COLUMNS:
            continue
        if condition.column not in columns:
            raise BadFilter(_describe_unknown(condition.column, columns))
        _check_kind(condition, columns[condition.column])


def _describe_unknown(column: str, columns: Iterable[str]) -> str:
    names = sorted(columns)
    spellings = {name.casefold(): name for name in names}
    near = difflib.get_close_matches(column.casefold(), spellings, n=1, cutoff=0.6)
    suggestion = f"; did you mean {spellings[near[0]]!r}?" if near else ""
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    has = f"it has {shown}" if names else "it has none; see `lookalike ingest --help` for where metadata comes from"
    return f"the collection has no column {column!r}{suggestion} ({has}; and {', '.join(COLUMNS)})"


def _check_kind(condition: Condition, kinds: set[str]) -> None:
    """An operator needs one of certain kinds in the column; a list may hold anything, so elements are not checked."""
    column, operator = condition.column, condition.operator
    holds = " and ".join(_PLURALS[kind] for kind in sorted(kinds))
    if operator == "contains":
        if "list" not in kinds:
            advice = f'; write {column} like "%{condition.values[0]}%"' if "text" in kinds else ""
            raise BadFilter(f"{column} holds {holds}, and `contains` looks for an element of a list{advice}")
    elif operator in ("startswith", "like"):
        if "text" not in kinds:
            raise BadFilter(f"{column} holds {holds}, and `{operator}` matches text")
    elif operator != "exists" and not any(_KINDS[type(value)] in kinds for value in condition.values):
        shown = _shown_values(condition.values)
        raise BadFilter(f"{column} holds {holds}, which cannot be compared with {shown}")


def _shown_values(values: Iterable[Scalar]) -> str:
    """Only the first reading of each word: 5 stands for 5 and "5"."""
    return repr(next(iter(values)))
