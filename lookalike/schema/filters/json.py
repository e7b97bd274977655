r"""Filters as JSON: `{"category": "shoes", "price": {"lt": 50}, "or": [{"brand": "A"}, {"not": {"size": 42}}]}`.

The keys of an object are columns; all have to hold. A column's value is what it equals, or an object of operators: eq,
ne, lt, lte, gt, gte, in, not_in, contains, exists. The keys `and`, `or` (lists of filters) and `not` (one filter)
combine; a column of such a name is written in quotes of its own, `"\"or\""`.
"""

import json
import reprlib
from collections.abc import Iterator, Mapping
from typing import Any

from lookalike.schema.errors import BadFilter
from lookalike.schema.filters.ast import (
    MAX_CONDITIONS,
    MAX_DEPTH,
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
}
_JSON_NAMES = {operator: name for name, operator in _OPERATORS.items()}


def parse_json_filter(value: Any) -> Filter:
    """Read a filter from what a JSON parser gave. Raises BadFilter with the part that was not understood."""
    return check_filter_size(_filter(value, 1))


def _filter(value: Any, depth: int) -> Filter:
    if depth > MAX_DEPTH:
        raise BadFilter(f"a filter may be nested {MAX_DEPTH} deep, not more")
    if not isinstance(value, Mapping):
        raise BadFilter(f'a filter is an object such as {{"price": {{"lt": 50}}}}, not {reprlib.repr(value)}')
    return tuple(clause for key, inner in value.items() for clause in _clauses(key, inner, depth + 1))


def _clauses(key: str, value: Any, depth: int) -> Iterator[Clause]:
    if key == "and":
        for inner in _several(key, value):
            yield from _filter(inner, depth)
    elif key == "or":
        yield AnyOf(tuple(_filter(inner, depth) for inner in _several(key, value)))
    elif key == "not":
        yield Not(_filter(value, depth))
    elif isinstance(value, Mapping):
        if not value:
            raise BadFilter(f'{key!a}: {{}} says nothing; write a value, or an operator such as {{"exists": true}}')
        yield from (_condition(_column(key), operator, operand) for operator, operand in value.items())
    else:
        yield Condition(_column(key), "=", (_scalar(key, value),))


def _several(key: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise BadFilter(f'"{key}" takes a list of filters, not {reprlib.repr(value)}')
    if len(value) > MAX_CONDITIONS:
        raise BadFilter(f'"{key}" takes up to {MAX_CONDITIONS} filters, not {len(value)}')
    return value


def _condition(column: str, operator: str, operand: Any) -> Clause:
    if operator == "exists" and isinstance(operand, bool):
        exists = Condition(column, "exists")
        return exists if operand else Not((exists,))
    if operator not in _OPERATORS:
        known = ", ".join([*_OPERATORS, "exists (true or false)"])
        raise BadFilter(f"{column!a}: {reprlib.repr(operator)} is no operator; take one of {known}")
    if operator not in ("in", "not_in"):
        return Condition(column, _OPERATORS[operator], (_scalar(column, operand),))
    if not isinstance(operand, list):
        raise BadFilter(f"{column!a}: {operator} takes a list of values, not {reprlib.repr(operand)}")
    return Condition(column, _OPERATORS[operator], tuple(_scalar(column, value) for value in operand))


def _scalar(column: str, value: Any) -> str | int | float | bool:
    if isinstance(value, str | int | float):
        return value
    raise BadFilter(
        f"{column!a} cannot be compared with {reprlib.repr(value)}; take text, a number, true or false "
        '(and {"exists": false} for what is not there)'
    )


def _column(key: str) -> str:
    """A name in double quotes is taken as it is: a column may be called `or`."""
    if len(key) > 1 and key[0] == key[-1] == '"':
        try:
            return str(json.loads(key, strict=False))
        except ValueError as error:
            raise BadFilter(f"the column {key!a} is not a quoted name: {error}") from None
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
