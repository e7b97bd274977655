"""Writing a filter as a Milvus boolean expression, with every value escaped."""

import re
from collections.abc import Iterable, Sequence

from lookalike.schema.errors import BadFilter
from lookalike.schema.filters.ast import Clause, Condition, Filter, Not, Scalar

COLUMNS = ("product_id", "image_id", "image", "source")
"""Columns of the collection itself that a filter may name beside metadata; all of them are text."""


def compile_filter(where: Filter) -> str:
    """Write a filter as a Milvus boolean expression; the empty filter is the empty string."""
    return _join_and([_write_clause(clause) for clause in where])


def column_in(column: str, values: Iterable[str]) -> str:
    """Write `column in [values]` for a column of the collection, escaped."""
    return f"{column} in [{', '.join(map(quote_literal, values))}]"


def quote_literal(value: Scalar) -> str:
    """Write a value as a Milvus literal. No character in it can end the literal.

    Escapes only what must be: Milvus Lite reads no numeric escapes, a server no surrogate pairs.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + value.translate(_ESCAPES) + '"'
    return repr(value)


_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n", "\r": r"\r", "\t": r"\t"})


def _write_clause(clause: Clause) -> str:
    if isinstance(clause, Condition):
        return _write_condition(clause)
    if isinstance(clause, Not):
        return _join_or([_write_negation(inner) for inner in clause.negated])
    return _join_or([f"({compile_filter(alternative)})" for alternative in clause.alternatives])


def _write_negation(clause: Clause) -> str:
    """Push the negation down to the conditions: Milvus versions differ in `not` around a missing column."""
    if isinstance(clause, Not):
        return f"({compile_filter(clause.negated)})"
    if isinstance(clause, Condition):
        return _join_or([*_match_incomparable(clause), f"(not {_write_condition(clause)})"])
    negations = [_join_or([_write_negation(inner) for inner in alternative]) for alternative in clause.alternatives]
    return f"({_join_and(negations)})"


def _match_incomparable(condition: Condition) -> list[str]:
    """Return expressions for the rows that a condition cannot be applied to; a negation must include these rows."""
    if condition.column in COLUMNS:
        return []
    path = _metadata_path(condition.column)
    missing = f"(not (exists {path}))"
    if condition.operator not in ("<", "<=", ">", ">=", "startswith", "like"):
        return [missing]
    is_text = f'({path} like "%")'
    compares_texts = all(isinstance(value, str) for value in _select_orderable(condition, condition.values))
    return [missing, f"(not {is_text})" if compares_texts else is_text]


def _write_condition(condition: Condition) -> str:
    column = condition.column if condition.column in COLUMNS else _metadata_path(condition.column)
    # The columns of the collection are text and always present; Milvus has no `exists` for them.
    values = _to_texts(condition.values) if column in COLUMNS else condition.values
    if condition.operator == "exists":
        return f"(exists {column})" if column not in COLUMNS else f'({column} != "")'
    if condition.operator in ("=", "in"):
        return _join_or([f"{column} == {quote_literal(value)}" for value in values])
    if condition.operator in ("!=", "not in"):
        return _write_unequal(column, values)
    if condition.operator == "contains":
        if column in COLUMNS:
            raise BadFilter(f"{column} contains …: {column} is a text, not a list; use =")
        # json_contains_any with one element each: Milvus Lite accepts no negative number in json_contains, and a server
        # no list of mixed types.
        return _join_or([f"json_contains_any({column}, [{quote_literal(_to_element(value))}])" for value in values])
    if condition.operator in ("startswith", "like"):
        return _join_or([_write_match(column, condition.operator, str(value)) for value in values])
    return _join_or(
        [f"{column} {condition.operator} {quote_literal(value)}" for value in _select_orderable(condition, values)]
    )


def _write_match(column: str, operator: str, pattern: str) -> str:
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
    stem = prefix.rstrip("\U0010ffff")
    if not stem:
        return ""
    following = ord(stem[-1]) + 1
    return stem[:-1] + chr(0xE000 if following == 0xD800 else following)


def _metadata_path(column: str) -> str:
    return f"metadata[{quote_literal(column)}]"


def _write_unequal(column: str, values: Iterable[Scalar]) -> str:
    unequal = _join_and([f"{column} != {quote_literal(value)}" for value in values])
    # `exists` is needed because rows without the key match on a server, but not on Milvus Lite. Its parentheses are
    # needed for 2.3, where `exists` applies to the whole rest of the expression.
    return f"({unequal})" if column in COLUMNS else f"((exists {column}) and {unequal})"


def _select_orderable(condition: Condition, values: tuple[Scalar, ...]) -> tuple[Scalar, ...]:
    """Leave out true and false, and the text of a number: `price < 50` compares numbers."""
    if condition.column in COLUMNS:
        return values
    orderable = tuple(value for value in values if not isinstance(value, bool))
    numbers = tuple(value for value in orderable if not isinstance(value, str))
    if len(orderable) < len(values) and not numbers:
        raise BadFilter(f"{condition.column} {condition.operator} {values[0]}: true and false have no order; use =")
    return numbers or orderable


def _to_element(value: Scalar) -> Scalar:
    """Return a float if it is exact: a server finds 1.0 in [1], but not 1 in [1.0]."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53:
        return float(value)
    return value


def _join_and(expressions: Sequence[str]) -> str:
    return _join(" and ", expressions)


def _join_or(expressions: Sequence[str]) -> str:
    return "(" + _join(" or ", expressions) + ")"


def _join(word: str, expressions: Sequence[str]) -> str:
    """Join as a balanced tree: a flat chain of a thousand expressions takes a server fifty times as long."""
    if len(expressions) <= 8:
        return word.join(expressions)
    middle = len(expressions) // 2
    return f"({_join(word, expressions[:middle])}){word}({_join(word, expressions[middle:])})"


def _to_texts(values: tuple[Scalar, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(value if isinstance(value, str) else quote_literal(value) for value in values))
