"""Read rows of CSV, JSON lines and Parquet one by one; a row that cannot be read is a BrokenRow."""

import csv
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, TextIO

from lookalike.ingest.sources.column_map import ColumnMap
from lookalike.ingest.sources.metadata import ManifestRow
from lookalike.schema.errors import BadSource
from lookalike.schema.metadata import RESERVED_NAMES, ColumnTypes, convert_value, guess_type
from lookalike.schema.numbers import ValueFormat

STANDARD_INPUT = "-"
_PARQUET_BATCH = 1_000
_FIRST_ROWS = 1_000
"""JSON lines in which every column must be seen that is needed; one that is rarer cannot be renamed."""

_MAX_CELL_CHARACTERS = 16 * 2**20


@dataclass(frozen=True, slots=True)
class BrokenRow:
    """A row that cannot be read, and why."""

    reason: str


LocatedRow = tuple[str, ManifestRow | BrokenRow]
"""Where a row is, such as "line 7", and the row."""


def get_suffix(path: str) -> str:
    """Return the key of READERS for a manifest: the suffix of its name, or - for standard input."""
    return path if path == STANDARD_INPUT else Path(path).suffix.lower()


def _read_csv(path: str, fields: ColumnTypes, values: ValueFormat, columns: ColumnMap) -> Iterator[LocatedRow]:
    """Read CSV in two passes: all of its values are text, so the first pass infers the types of its columns."""
    with _open_text(path) as file:
        types = _infer_types((row for _, row in _read_csv_rows(path, file, columns)), fields, values)
    with _open_text(path) as file:
        for location, row in _read_csv_rows(path, file, columns):
            yield location, row if isinstance(row, BrokenRow) else _convert_row(row, types, values)


def _read_csv_rows(path: str, file: TextIO, columns: ColumnMap) -> Iterator[tuple[str, dict[str, str] | BrokenRow]]:
    header_line = file.readline()
    file.seek(0)
    # Spreadsheets write semicolons or tabs where the comma is the decimal separator.
    delimiter = max(",;\t", key=re.sub(r'"[^"]*"', "", header_line).count)
    # The default refuses long descriptions. A value that is too long for a row is rejected later.
    csv.field_size_limit(_MAX_CELL_CHARACTERS)
    table = csv.reader(file, delimiter=delimiter, strict=True)
    try:
        header = [name.strip() for name in next(table, [])]
    except csv.Error as error:
        raise BadSource(f"SOURCE {path!r} has no header that can be read: {error}") from error
    header = columns.rename_header(path, header)
    while True:
        try:
            cells = next(table)
        except StopIteration:
            return
        except csv.Error as error:
            yield f"line {table.line_num}", BrokenRow(f"it is not CSV: {error}")
            continue
        if cells and len(cells) != len(header):
            yield f"line {table.line_num}", BrokenRow(f"it has {len(cells)} values for {len(header)} columns")
        elif cells:
            yield f"line {table.line_num}", {name: cell for name, cell in zip(header, cells, strict=True) if name}


def _infer_types(rows: Iterable[dict[str, str] | BrokenRow], fields: ColumnTypes, values: ValueFormat) -> ColumnTypes:
    """Return the type of each undeclared column: the narrowest that all of its values fit."""
    types: ColumnTypes = {}
    for row in rows:
        for name, text in () if isinstance(row, BrokenRow) else row.items():
            is_inferred = types.get(name) != "text" and name not in fields and name not in RESERVED_NAMES
            if is_inferred and not values.is_null(text):
                types[name] = _widen_type(types.get(name), guess_type(text, values))
    return types


def _widen_type(known: str | None, other: str) -> str:
    if known is None or known == other:
        return other
    return "float" if {known, other} == {"int", "float"} else "text"


def _convert_row(row: dict[str, str], types: ColumnTypes, values: ValueFormat) -> ManifestRow | BrokenRow:
    try:
        return {
            name: convert_value(text, types[name], values) if name in types and not values.is_null(text) else text
            for name, text in row.items()
        }
    except ValueError as error:
        return BrokenRow(f"the file changed while it was read ({error}); run it again")


def _read_json_lines(path: str, _fields: ColumnTypes, _values: ValueFormat, columns: ColumnMap) -> Iterator[LocatedRow]:
    rows = _read_json_rows(path)
    first = _take_first_rows(rows, columns.needed)
    seen = dict.fromkeys(name for _, row in first if not isinstance(row, BrokenRow) for name in row)
    if seen:
        columns.rename_header(path, list(seen))
    for location, row in chain(first, rows):
        yield location, row if isinstance(row, BrokenRow) else _rename_row(row, columns)


def _take_first_rows(rows: Iterator[LocatedRow], needed: set[str]) -> list[LocatedRow]:
    """Take rows until each of the columns was in one of them; at most a thousand."""
    taken: list[LocatedRow] = []
    missing = set(needed)
    for location, row in islice(rows, _FIRST_ROWS):
        taken.append((location, row))
        missing.difference_update(() if isinstance(row, BrokenRow) else row)
        if not missing:
            break
    return taken


def _rename_row(row: ManifestRow, columns: ColumnMap) -> ManifestRow | BrokenRow:
    try:
        return columns.rename_row(row)
    except ValueError as error:
        return BrokenRow(str(error))


def _read_json_rows(path: str) -> Iterator[LocatedRow]:
    with nullcontext(sys.stdin) if path == STANDARD_INPUT else _open_text(path) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield f"line {number}", _parse_json_row(line.removeprefix("\ufeff"))


def _parse_json_row(line: str) -> ManifestRow | BrokenRow:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return BrokenRow(f"it is not JSON: {error}")
    return row if isinstance(row, dict) else BrokenRow("it is not a JSON object")


def _read_parquet(path: str, _fields: ColumnTypes, _values: ValueFormat, columns: ColumnMap) -> Iterator[LocatedRow]:
    from pyarrow import ArrowException, parquet

    number = 0
    try:
        with parquet.ParquetFile(path) as table:
            columns.rename_header(path, table.schema_arrow.names)
            for batch in table.iter_batches(_PARQUET_BATCH):
                for row in _read_parquet_batch(batch):
                    number += 1
                    yield f"row {number}", row if isinstance(row, BrokenRow) else columns.rename_row(row)
    except ArrowException as error:
        raise BadSource(f"SOURCE {path!r} cannot be read as Parquet after row {number}: {error}") from error


def _read_parquet_batch(batch: Any) -> Iterator[ManifestRow | BrokenRow]:
    """Convert rows to Python values; a date outside Python's range breaks only its own row."""
    try:
        yield from batch.to_pylist()
    except (ValueError, OverflowError):
        for number in range(len(batch)):
            try:
                yield batch.slice(number, 1).to_pylist()[0]
            except (ValueError, OverflowError) as error:
                yield BrokenRow(f"one of its values cannot be read: {error}")


def _open_text(path: str) -> TextIO:
    # Spreadsheets write a byte order mark.
    return Path(path).open(encoding="utf-8-sig", newline="")


READERS: dict[str, Callable[[str, ColumnTypes, ValueFormat, ColumnMap], Iterator[LocatedRow]]] = {
    STANDARD_INPUT: _read_json_lines,
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".parquet": _read_parquet,
}
"""Suffix of a manifest → the function that reads it."""
