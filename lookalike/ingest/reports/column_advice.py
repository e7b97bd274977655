"""What to say about the columns of a run: numbers that are texts, columns of several types, and how to declare them."""

import reprlib
import shlex
from collections.abc import Iterator

from lookalike.ingest.reports.column_tally import MAX_EXAMPLES, TYPE_NAMES, Column, ColumnTally, Example
from lookalike.schema.metadata import ColumnTypes
from lookalike.schema.milvus.column_kinds import ColumnKinds
from lookalike.schema.number_advice import FORMATS, describe_change, find_format, suggest_null_value
from lookalike.schema.numbers import ValueFormat

_MAX_SHOWN = MAX_EXAMPLES - 1
_ID = "0123456789eE+"
"""The characters of numbers that are ids, such as 007 and 1e5."""

_shortener = reprlib.Repr()
_shortener.maxstring = 60


def describe_columns(tally: ColumnTally, declared: ColumnTypes, given: ValueFormat) -> Iterator[str]:
    """Yield a warning for each undeclared column that filters on numbers would search in vain.

    A column is nearly all numbers when at most a tenth of its values are not; or when the others are one text, such as
    `on request`, and not more than the numbers.
    """
    for name, column in tally.columns.items():
        if name in declared:
            continue
        warning = _describe_numbers(name, column, given) if column.types[str] else None
        warning = warning or _describe_types(name, column)
        if warning:
            yield warning


def describe_other_sources(tally: ColumnTally, others: ColumnKinds) -> Iterator[str]:
    """Yield a warning for each column that is of another type in the rows of other sources; a query for each column."""
    if not tally.columns or not others.has_rows():
        return
    for name, column in tally.columns.items():
        [(kind, _)] = column.types.most_common(1)
        kinds = others.find_other_kind(name, kind)
        if kinds:
            yield (
                f"{name} is {kinds[1]} in this source, and {kinds[0]} in the rows of other sources: no filter on it "
                f"finds both. Give both one type: --field {shlex.quote(f'{name}:TYPE')} declares it"
            )


def _describe_numbers(name: str, column: Column, given: ValueFormat) -> str | None:
    """Describe a column that is nearly all numbers, some or all of them written as text."""
    index = _choose_format(column, given)
    total, numbers = column.types.total(), column.count_numbers(index)
    others = _list_others(column, index)
    if not _is_nearly_numbers(total, numbers, others) or _looks_like_ids(column, others):
        return None
    change = describe_change(given, FORMATS[index])
    is_mixed = len(column.types) > 1
    if not (change or others or is_mixed or column.has_fractions):
        return None  # JSON or Parquet that has only integers as text means text
    texts = column.list_examples(index, numbers=True)
    is_text = f"text in {column.types[str]:,} of {total:,} values" if is_mixed else "text"
    share = f"all {total:,} values" if numbers == total else f"{numbers:,} of {total:,} values"
    such_as = f" such as {_show(texts[:1])}" if texts and (change or is_mixed or not others) else ""
    rest = f"; not numbers: {_show(others)}" if others else ""
    return f"{name} is {is_text}: {share} are numbers{such_as}{rest}. {_advise(name, column, change, others)}"


def _advise(name: str, column: Column, change: str, others: list[Example]) -> str:
    """Say which options make a column numeric."""
    kind = "float" if column.has_fractions else "int"
    field = f"--field {shlex.quote(f'{name}:{kind}')}"
    change = f"{change[0].upper()}{change[1:]}" if change else ""
    if not others:
        return change or f"Declare it: {field}"
    options = [suggest_null_value(example.value) for example in others if isinstance(example.value, str)]
    is_short = all(options) and len(options) == len(others) <= _MAX_SHOWN
    nulls = " ".join(options) if is_short else "--null-value TEXT"
    begin = f"{change}, and" if change else "To find it by number,"
    these = "this text" if len(others) == 1 else "such texts"
    advice = f"{begin} treat {these} as missing: {nulls}; or reject the rows: {field}"
    can_be_text = column.types.keys() <= {str, int}
    return advice + f". If it is text on purpose: --field {shlex.quote(f'{name}:text')}" if can_be_text else advice


def _describe_types(name: str, column: Column) -> str | None:
    """Describe a column of several types, of which a filter matches only one. Text among numbers is no mistake."""
    types = column.types
    families = {TYPE_NAMES[kind].replace("int", "float") for kind in types}
    if len(families) == 1 or families == {"float", "text"}:
        return None
    rarest = min(types, key=lambda kind: types[kind])
    counts = ", ".join(f"{TYPE_NAMES[kind]} {count:,}" for kind, count in column.types.most_common())
    return (
        f"{name} has values of several types ({counts}), for example {_show([column.firsts[rarest]])}. "
        "A filter matches values of its own type: give all values one type in the source"
    )


def _choose_format(column: Column, given: ValueFormat) -> int:
    """Return the format that reads most of the texts as numbers: the given one, or else the simplest."""
    best: int = max([find_format(given), *range(len(FORMATS))], key=column.count_numbers)
    return best


def _list_others(column: Column, index: int) -> list[Example]:
    """List what is no number: texts, and the first value of each type that is neither text nor number."""
    values = [first for kind, first in column.firsts.items() if kind not in (int, float, str)]
    return [*column.list_examples(index, numbers=False), *values]


def _is_nearly_numbers(total: int, numbers: int, others: list[Example]) -> bool:
    if numbers < 2:
        return False
    return 10 * (total - numbers) <= total or (len(others) == 1 and 2 * numbers >= total)


def _looks_like_ids(column: Column, others: list[Example]) -> bool:
    """Return whether numbers are ids: none has a fraction, and the others are digits too, such as 007."""
    is_digits = (isinstance(example.value, str) and not example.value.strip(_ID) for example in others)
    return bool(others) and not column.has_fractions and all(is_digits)


def _show(examples: list[Example]) -> str:
    shown = ", ".join(
        f"{_shortener.repr(example.value)} (product {example.product_id}{example.location and f', {example.location}'})"
        for example in examples[:_MAX_SHOWN]
    )
    return shown + (", …" if len(examples) > _MAX_SHOWN else "")
