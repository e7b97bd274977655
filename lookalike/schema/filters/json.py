r"""Filters as JSON: `{"category": "shoes", "price": {"lt": 50}, "or": [{"brand": "A"}, {"not": {"size": 42}}]}`.

The keys of an object are columns; all must match. The value of a key is what the column must equal, or an object of
operators: eq, ne, lt, lte, gt, gte, in, not_in, contains, startswith, like, exists. The keys `and`, `or` (lists of
filters) and `not` (one filter) combine filters. A column of such a name is written in quotes of its own: `"\"or\""`.
"""

import json
import reprlib
from collections.abc import Iterator, Mapping
from typing import Any

from lookalike.schema.errors import BadFilter
from lookalike.schema.filters.ast import (
    MAX_CONDITIONS,
    MAX_DEPTH,
    MAX_VALUES,
    AnyOf,
    Clause,
    Condition,
    Filter,
    Not,
    check_filter_size,
)

_OPERATORS = {
    "eq": "=",
    "ne": "!=",
    "lt": "<",
    "lte": "<=",
    "gt": ">",
    "gte": ">=",
    "in": "in",
    "not_in": "not in",
    "contains": "contains",
    "startswith": "startswith",
    "like": "like",
}
_MAX_PARTS = 10_000
"""More than any filter within the limits of conditions, values and depth has."""

_JSON_NAMES = {operator: name for name, operator in _OPERATORS.items()}


def parse_json_filter(value: Any) -> Filter:
    """Read a filter from a parsed JSON value. Raises BadFilter with the part that is invalid."""
    _check_parts(value)
    return check_filter_size(_parse_filter(value, 1))


def _check_parts(value: Any) -> None:
    """Raise BadFilter for JSON that is far too large, before millions of conditions are made of it."""
    count, rest = 0, [value]
    while rest:
        inner = rest.pop()
        if isinstance(inner, Mapping | list):
            count += len(inner)
            if count > _MAX_PARTS:
                raise BadFilter(
                    f"a filter of more than {_MAX_PARTS} names and values is too large; "
                    f"{MAX_CONDITIONS} conditions and {MAX_VALUES} values are the limit"
                )
            rest.extend(inner.values() if isinstance(inner, Mapping) else inner)


def _parse_filter(value: Any, depth: int) -> Filter:
    if depth > MAX_DEPTH:
        raise BadFilter(f"the filter is nested too deep; {MAX_DEPTH} levels is the limit")
    if not isinstance(value, Mapping):
        raise BadFilter(f'a filter is an object such as {{"price": {{"lt": 50}}}}, not {reprlib.repr(value)}')
    return tuple(clause for key, inner in value.items() for clause in _parse_clauses(key, inner, depth + 1))


def _parse_clauses(key: str, value: Any, depth: int) -> Iterator[Clause]:
    if key == "and":
        for inner in _check_list(key, value):
            yield from _parse_filter(inner, depth)
    elif key == "or":
        yield AnyOf(tuple(_parse_filter(inner, depth) for inner in _check_list(key, value)))
    elif key == "not":
        yield Not(_parse_filter(value, depth))
    elif isinstance(value, Mapping):
        if not value:
            raise BadFilter(f'{key!a}: {{}} has no condition; write a value, or an operator such as {{"exists": true}}')
        yield from (_parse_condition(_parse_column(key), operator, operand) for operator, operand in value.items())
    else:
        yield Condition(_parse_column(key), "=", (_check_scalar(key, value),))


def _check_list(key: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise BadFilter(f'"{key}" takes a list of filters, not {reprlib.repr(value)}')
    if len(value) > MAX_CONDITIONS:
        raise BadFilter(f'"{key}" takes up to {MAX_CONDITIONS} filters, not {len(value)}')
    return value


def _parse_condition(column: str, operator: str, operand: Any) -> Clause:
    if operator == "exists" and isinstance(operand, bool):
        exists = Condition(column, "exists")
        return exists if operand else Not((exists,))
    if operator not in _OPERATORS:
        known = ", ".join([*_OPERATORS, "exists (true or false)"])
        raise BadFilter(f"{column!a}: {reprlib.repr(operator)} is no operator; use one of {known}")
    if operator not in ("in", "not_in"):
        return Condition(column, _OPERATORS[operator], (_check_scalar(column, operand),))
    if not isinstance(operand, list):
        raise BadFilter(f"{column!a}: {operator} takes a list of values, not {reprlib.repr(operand)}")
    return Condition(column, _OPERATORS[operator], tuple(_check_scalar(column, value) for value in operand))


def _check_scalar(column: str, value: Any) -> str | int | float | bool:
    if isinstance(value, str | int | float):
        return value
    raise BadFilter(
        f"{column!a} cannot be compared with {reprlib.repr(value)}; use a text, a number, true or false, "
        'or {"exists": false} for products without the column'
    )


def _parse_column(key: str) -> str:
    """Return the name of a column. In double quotes it may be any text, such as `or`."""
    if len(key) > 1 and key[0] == key[-1] == '"':
        try:
            return str(json.loads(key, strict=False))
        except ValueError as error:
            raise BadFilter(f"the column {key!a} is not a valid quoted name: {error}") from None
    return key


def filter_to_json(where: Filter) -> dict[str, Any]:
    """Write a filter as JSON that means the same; `parse_json_filter` reads it."""
    written: dict[str, Any] = {}
    others: list[dict[str, Any]] = []
    for key, value in (_clause_to_json(clause) for clause in where):
        if key in written:
            others.append({key: value})
        else:
            written[key] = value
    return {**written, "and": others} if others else written


def _clause_to_json(clause: Clause) -> tuple[str, Any]:
    if isinstance(clause, AnyOf):
        return "or", [filter_to_json(alternative) for alternative in clause.alternatives]
    if isinstance(clause, Not):
        return "not", filter_to_json(clause.negated)
    column, values = _quote_column(clause.column), clause.values
    if clause.operator == "exists":
        return column, {"exists": True}
    if clause.operator in ("=", "in"):
        return column, {"in": list(values)}
    if clause.operator in ("!=", "not in"):
        return column, {"not_in": list(values)}
    operator = _JSON_NAMES[clause.operator]
    if len(values) == 1:
        return column, {operator: values[0]}
    return "or", [{column: {operator: value}} for value in values]


def _quote_column(column: str) -> str:
    """Quote a name that would be read as something else."""
    is_quoted = len(column) > 1 and column[0] == column[-1] == '"'
    return json.dumps(column) if is_quoted or column in ("and", "or", "not") else column
