"""Which rows a filter keeps, by numpy: each condition is looked at once for each distinct value of its column.

Of the expressions that Milvus Lite reads, those that are written here (schema.expressions) are understood.
"""

import json
import operator
import re
from collections.abc import Callable, Iterable
from functools import cached_property, lru_cache, reduce
from typing import Any

import numpy as np
import numpy.typing as npt
from milvus_lite.search.filter import ast, parse_expr

Mask = npt.NDArray[np.bool_]
"""Shape (rows,)."""

ORDER: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_EXACT = 2**53
"""Up to here a float64 tells whole numbers apart."""

parsed = lru_cache(256)(parse_expr)


class NotUnderstood(Exception):
    """An expression with something else in it."""


class Column:
    """The distinct values of a column, None where it is missing, and for each row which of them it has."""

    def __init__(self, rows: Iterable[Any]) -> None:
        known: dict[Any, int] = {}
        self.values: list[Any] = []
        codes = []
        for value in rows:
            code = known.setdefault(_identity(value), len(self.values))
            if code == len(self.values):
                self.values.append(value)
            codes.append(code)
        self._known = known
        self._codes = np.array(codes, dtype=np.int32)

    def one_of(self, values: Iterable[Any]) -> Mask:
        """Tell which rows have one of these values: 5 is 5.0, but neither "5" nor true."""
        found = [self._known[key] for key in map(_identity, values) if key in self._known]
        kept = np.zeros(len(self.values), dtype=bool)
        kept[found] = True
        return self._of_rows(kept)

    def that(self, holds: Callable[[Any], bool]) -> Mask:
        """Tell which rows have a value of which this holds."""
        return self._of_rows(np.fromiter(map(holds, self.values), dtype=bool, count=len(self.values)))

    def present(self) -> Mask:
        """Tell which rows have the column at all."""
        return self.that(lambda value: value is not None)

    def ordered(self, compare: Callable[[Any, Any], Any], other: Any) -> Mask:
        """Tell which rows have a value that compares so with `other`; text with text, numbers with numbers."""
        kind = _kind(other)
        if kind == "number" and abs(other) <= _EXACT and self._numbers is not None:
            return self._of_rows(compare(self._numbers, other))
        return self.that(lambda value: _kind(value) == kind and bool(compare(value, other)))

    def _of_rows(self, kept: Mask) -> Mask:
        of_rows: Mask = kept[self._codes]
        return of_rows

    @cached_property
    def _numbers(self) -> npt.NDArray[np.float64] | None:
        """The values as numbers, NaN where they are none; None when that would round one."""
        numbers = [value if _kind(value) == "number" else np.nan for value in self.values]
        if any(abs(number) > _EXACT for number in numbers):
            return None
        return np.array(numbers, dtype=np.float64)


Columns = Callable[[str, str], Column]
"""From the name of a column, and a key in it where it is JSON, to the column."""


def keep(node: Any, columns: Columns) -> Mask:
    """Tell which rows an expression keeps. Raises NotUnderstood."""
    match node:
        case ast.And(operands=operands):
            return reduce(operator.and_, [keep(one, columns) for one in operands])
        case ast.Or(operands=operands):
            return reduce(operator.or_, [keep(one, columns) for one in operands])
        case ast.Not(operand=operand):
            return ~keep(operand, columns)
        case ast.CmpOp(op=op, left=left, right=right):
            return _compared(op, _column(left, columns), _value(right))
        case ast.InOp(field=field, values=values, negate=False):
            return _column(field, columns).one_of(map(_value, values.elements))
        case ast.IsNullOp(field=field, negate=True):
            return _column(field, columns).present()
        case ast.LikeOp(value=value, pattern=ast.StringLit(value=pattern)):
            matches = _like(pattern).fullmatch
            return _column(value, columns).that(lambda found: isinstance(found, str) and matches(found) is not None)
        case ast.ArrayContainsOp(value=value, values=ast.ListLit(elements=elements), mode="any"):
            wanted = {_identity(_value(element)) for element in elements}
            return _column(value, columns).that(
                lambda found: isinstance(found, list) and not wanted.isdisjoint(map(_identity, found))
            )
    raise NotUnderstood(type(node).__name__)


def _like(pattern: str) -> re.Pattern[str]:
    r"""Turn a pattern into a regular expression: % is any text, _ one character, a backslash makes them literal."""
    wildcards = {"%": ".*", "_": "."}
    parts = re.findall(r"\\[\\%_]|.", pattern, re.DOTALL)
    return re.compile(
        "".join(wildcards.get(part) or re.escape(part[-1] if len(part) == 2 else part) for part in parts), re.DOTALL
    )


def _compared(op: str, column: Column, value: Any) -> Mask:
    if op == "==":
        return column.one_of([value])
    if op == "!=":
        return column.present() & ~column.one_of([value])
    return column.ordered(ORDER[op], value)


def _column(node: Any, columns: Columns) -> Column:
    match node:
        case ast.FieldRef(name=name):
            return columns(name, "")
        case ast.PathAccess(base=ast.FieldRef(name=name), path=(str(key),)):
            return columns(name, key)
    raise NotUnderstood(type(node).__name__)


def _value(node: Any) -> Any:
    if isinstance(node, (ast.IntLit, ast.FloatLit, ast.StringLit, ast.BoolLit)):
        return node.value
    raise NotUnderstood(type(node).__name__)


def _kind(value: Any) -> str:
    return "number" if type(value) in (int, float) else type(value).__name__


def _identity(value: Any) -> Any:
    """What two values share that are the same."""
    return (_kind(value), value if not isinstance(value, (list, dict)) else json.dumps(value, sort_keys=True))
