"""From a filter to a Milvus boolean expression, with every value escaped."""

import re
from collections.abc import Iterable, Sequence

from lookalike.schema.errors import BadFilter
from lookalike.schema.filters.ast import Clause, Condition, Filter, Not, Scalar

COLUMNS = ("product_id", "image_id", "image", "source")
"""What can be asked beside metadata: columns of the collection itself, all of them text."""


def compile_filter(where: Filter) -> str:
    """Write a filter as a Milvus boolean expression; the empty filter is the empty string."""
    return _all([_clause(clause) for clause in where])


def column_in(column: str, values: Iterable[str]) -> str:
    """Write `column in [values]` for a column of the collection, escaped."""
    return f"{column} in [{', '.join(map(quote_literal, values))}]"


def quote_literal(value: Scalar) -> str:
    """Write a value as Milvus reads it, so that nothing in it can end the literal.

    Milvus Lite knows no escapes by number and a server no surrogate pairs: what need not be escaped stays as it is.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + value.translate(_ESCAPES) + '"'
    return repr(value)


_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n", "\r": r"\r", "\t": r"\t"})


def _clause(clause: Clause) -> str:
    if isinstance(clause, Condition):
        return _condition(clause)
    if isinstance(clause, Not):
        return _any([_opposite(inner) for inner in clause.negated])
    return _any([f"({compile_filter(alternative)})" for alternative in clause.alternatives])


def _opposite(clause: Clause) -> str:
    """Negations go down to the conditions: of `not` around what is unknown, each Milvus makes something else."""
    if isinstance(clause, Not):
        return f"({compile_filter(clause.negated)})"
    if isinstance(clause, Condition):
        return _any([*_incomparable(clause), f"(not {_condition(clause)})"])
    return f"({_all([_any([_opposite(inner) for inner in alternative]) for alternative in clause.alternatives])})"


def _incomparable(condition: Condition) -> list[str]:
    """Say which rows are out of the question: of them Milvus may neither say that a condition holds nor that not."""
    if condition.column in COLUMNS:
        return []
    path = _path(condition.column)
    missing = f"(not (exists {path}))"
    if condition.operator not in ("<", "<=", ">", ">=", "startswith", "like"):
        return [missing]
    is_text = f'({path} like "%")'
    texts = all(isinstance(value, str) for value in _ordered(condition, condition.values))
    return [missing, f"(not {is_text})" if texts else is_text]


def _condition(condition: Condition) -> str:
    column = condition.column if condition.column in COLUMNS else _path(condition.column)
    # The columns of the collection are text, always there, and know neither numbers nor `exists`.
    values = _texts(condition.values) if column in COLUMNS else condition.values
    if condition.operator == "exists":
        return f"(exists {column})" if column not in COLUMNS else f'({column} != "")'
    if condition.operator in ("=", "in"):
        return _any([f"{column} == {quote_literal(value)}" for value in values])
    if condition.operator in ("!=", "not in"):
        return _differs(column, values)
    if condition.operator == "contains":
        if column in COLUMNS:
            raise BadFilter(f"{column} contains …: {column} is one text, not a list")
        # One element a list: Milvus Lite takes no negative number in json_contains, a server no mixed list.
        return _any([f"json_contains_any({column}, [{quote_literal(_as_element(value))}])" for value in values])
    if condition.operator in ("startswith", "like"):
        return _any([_matches(column, condition.operator, str(value)) for value in values])
    return _any([f"{column} {condition.operator} {quote_literal(value)}" for value in _ordered(condition, values)])


def _matches(column: str, operator: str, pattern: str) -> str:
    """Match text. A prefix is a range, which every Milvus knows; a 2.3 server refuses other patterns."""
    literals = [pattern, ""] if operator == "startswith" else _split_pattern(pattern)
    if len(literals) == 1:
        return f"{column} == {quote_literal(literals[0])}"
    if len(literals) == 2 and not literals[1]:
        end = _end_of_prefix(literals[0])
        upper = f" and {column} < {quote_literal(end)}" if end else ""
        return f"({column} >= {quote_literal(literals[0])}{upper})"
    escaped = (re.sub(r"([\\%_])", r"\\\1", text) for text in literals)
    return f"{column} like {quote_literal('%'.join(escaped))}"


def _split_pattern(pattern: str) -> list[str]:
    r"""Split a pattern at its wildcards: `red%mug` is red, mug. \% and \\ stand for themselves."""
    literals = [""]
    for part in re.findall(r"\\[\\%]|.", pattern, re.DOTALL):
        if part == "%":
            literals.append("")
        else:
            literals[-1] += part[-1]
    return literals


def _end_of_prefix(prefix: str) -> str:
    """The first text, by code points, after all that begin with a prefix; empty when there is none."""
    kept = prefix.rstrip("\U0010ffff")
    if not kept:
        return ""
    following = ord(kept[-1]) + 1
    return kept[:-1] + chr(0xE000 if following == 0xD800 else following)


def _path(column: str) -> str:
    return f"metadata[{quote_literal(column)}]"


def _differs(column: str, values: Iterable[Scalar]) -> str:
    differs = _all([f"{column} != {quote_literal(value)}" for value in values])
    # Without the key, a server keeps the row and Milvus Lite drops it: say what is meant. The inner parentheses are
    # for 2.3, where `exists` takes the whole rest of an expression.
    return f"({differs})" if column in COLUMNS else f"((exists {column}) and {differs})"


def _ordered(condition: Condition, values: tuple[Scalar, ...]) -> tuple[Scalar, ...]:
    """Leave out readings without an order, and the spelling of a number: `price < 50` is about numbers."""
    if condition.column in COLUMNS:
        return values
    ordered = tuple(value for value in values if not isinstance(value, bool))
    numbers = tuple(value for value in ordered if not isinstance(value, str))
    if len(ordered) < len(values) and not numbers:
        raise BadFilter(f"{condition.column} {condition.operator} {values[0]}: true and false have no order")
    return numbers or ordered


def _as_element(value: Scalar) -> Scalar:
    """A server finds 1.0 in [1] but not 1 in [1.0], so ask for the float where it is exact."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53:
        return float(value)
    return value


def _all(expressions: Sequence[str]) -> str:
    return _joined(" and ", expressions)


def _any(expressions: Sequence[str]) -> str:
    return "(" + _joined(" or ", expressions) + ")"


def _joined(word: str, expressions: Sequence[str]) -> str:
    """Join as a balanced tree: of a thousand in a row a server takes fifty times as long."""
    if len(expressions) <= 8:
        return word.join(expressions)
    middle = len(expressions) // 2
    return f"({_joined(word, expressions[:middle])}){word}({_joined(word, expressions[middle:])})"


def _texts(values: tuple[Scalar, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(value if isinstance(value, str) else quote_literal(value) for value in values))
