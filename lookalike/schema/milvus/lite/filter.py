"""Filters on the rows of Milvus Lite, evaluated with numpy: one comparison for each distinct value of a column.

It evaluates the expressions that schema/filters/expression.py writes, and raises UnsupportedExpression for others.
"""

import json
import operator
from collections.abc import Callable, Iterable
from functools import cached_property, lru_cache, reduce
from typing import Any

import numpy as np
import numpy.typing as npt
from milvus_lite.search.filter import ast, parse_expr

Mask = npt.NDArray[np.bool_]
"""Whether each row matches; shape (rows,)."""

COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_MAX_EXACT_FLOAT = 2**53
"""Up to here, float64 represents every integer."""

parse_expression = lru_cache(256)(parse_expr)


class UnsupportedExpression(Exception):
    """The expression has a part that this module does not evaluate."""


class Column:
    """The distinct values of a column (None where a row has none), and the index of each row's value among them."""

    def __init__(self, rows: Iterable[Any]) -> None:
        codes_by_key: dict[Any, int] = {}
        self.values: list[Any] = []
        codes = []
        for value in rows:
            code = codes_by_key.setdefault(_comparison_key(value), len(self.values))
            if code == len(self.values):
                self.values.append(value)
            codes.append(code)
        self._codes_by_key = codes_by_key
        self._codes = np.array(codes, dtype=np.int32)

    def is_in(self, values: Iterable[Any]) -> Mask:
        """Return which rows have one of these values. 5 equals 5.0, but neither "5" nor true."""
        keys = map(_comparison_key, values)
        matches = np.zeros(len(self.values), dtype=bool)
        matches[[self._codes_by_key[key] for key in keys if key in self._codes_by_key]] = True
        return self._expand(matches)

    def matches(self, predicate: Callable[[Any], bool]) -> Mask:
        """Return which rows have a value for which the predicate holds."""
        return self._expand(np.fromiter(map(predicate, self.values), dtype=bool, count=len(self.values)))

    def exists(self) -> Mask:
        """Return which rows have a value."""
        return self.matches(lambda value: value is not None)

    def compare(self, comparison: Callable[[Any, Any], Any], other: Any) -> Mask:
        """Return which rows have a value of the type of `other` for which the comparison with it holds."""
        kind = _kind(other)
        if kind == "number" and abs(other) <= _MAX_EXACT_FLOAT and self._numbers is not None:
            return self._expand(comparison(self._numbers, other))
        return self.matches(lambda value: _kind(value) == kind and bool(comparison(value, other)))

    def _expand(self, matches: Mask) -> Mask:
        """Turn a mask of the distinct values into one of the rows."""
        of_rows: Mask = matches[self._codes]
        return of_rows

    @cached_property
    def _numbers(self) -> npt.NDArray[np.float64] | None:
        """The distinct values as float64, NaN for other types; None when float64 would round one of them."""
        numbers = [value if _kind(value) == "number" else np.nan for value in self.values]
        if any(abs(number) > _MAX_EXACT_FLOAT for number in numbers):
            return None
        return np.array(numbers, dtype=np.float64)


Columns = Callable[[str, str], Column]
"""Returns a column by its name, and in a JSON column the values under a key; the key is "" otherwise."""


def evaluate(node: Any, columns: Columns) -> Mask:
    """Return which rows an expression matches. Raises UnsupportedExpression."""
    match node:
        case ast.And(operands=operands):
            return reduce(operator.and_, [evaluate(operand, columns) for operand in operands])
        case ast.Or(operands=operands):
            return reduce(operator.or_, [evaluate(operand, columns) for operand in operands])
        case ast.Not(operand=operand):
            return ~evaluate(operand, columns)
        case ast.CmpOp(op=op, left=left, right=right):
            return _compare(op, _column(left, columns), _literal(right))
        case ast.InOp(field=field, values=values, negate=False):
            return _column(field, columns).is_in(map(_literal, values.elements))
        case ast.IsNullOp(field=field, negate=True):
            return _column(field, columns).exists()
        case ast.LikeOp(value=value, pattern=ast.StringLit(value="%")):
            return _column(value, columns).matches(lambda item: isinstance(item, str))
        case ast.ArrayContainsOp(value=value, values=ast.ListLit(elements=elements), mode="any"):
            keys = {_comparison_key(_literal(element)) for element in elements}
            return _column(value, columns).matches(
                lambda item: isinstance(item, list) and not keys.isdisjoint(map(_comparison_key, item))
            )
    raise UnsupportedExpression(type(node).__name__)


def _compare(op: str, column: Column, value: Any) -> Mask:
    if op == "==":
        return column.is_in([value])
    if op == "!=":
        return column.exists() & ~column.is_in([value])
    return column.compare(COMPARISONS[op], value)


def _column(node: Any, columns: Columns) -> Column:
    match node:
        case ast.FieldRef(name=name):
            return columns(name, "")
        case ast.PathAccess(base=ast.FieldRef(name=name), path=(str(key),)):
            return columns(name, key)
    raise UnsupportedExpression(type(node).__name__)


def _literal(node: Any) -> Any:
    if isinstance(node, (ast.IntLit, ast.FloatLit, ast.StringLit, ast.BoolLit)):
        return node.value
    raise UnsupportedExpression(type(node).__name__)


def _kind(value: Any) -> str:
    return "number" if type(value) in (int, float) else type(value).__name__


def _comparison_key(value: Any) -> Any:
    """Return a hashable key that is the same for equal values of one type."""
    return (_kind(value), value if not isinstance(value, (list, dict)) else json.dumps(value, sort_keys=True))
