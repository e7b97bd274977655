"""Rows of CSV, JSON lines and Parquet, one by one; a row that cannot be read is a Broken, and the reading goes on."""

import csv
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from lookalike.ingest.sources.metadata import ManifestRow
from lookalike.schema.errors import BadSource
from lookalike.schema.metadata import RESERVED_NAMES, ColumnTypes, convert_value, guess_type

STANDARD_INPUT = "-"
_PARQUET_ROWS = 1_000
_LONGEST_CELL = 16 * 2**20


@dataclass(frozen=True, slots=True)
class BrokenRow:
    """A row that cannot be read, and why."""

    reason: str


Numbered = tuple[str, ManifestRow | BrokenRow]
"""Where a row is, for people, and the row."""


def suffix(path: str) -> str:
    """What says how a manifest is written: the ending of its name, or - for standard input."""
    return path if path == STANDARD_INPUT else Path(path).suffix.lower()


def _csv(path: str, fields: ColumnTypes) -> Iterator[Numbered]:
    """Read CSV. Its values are text: what they mean is found in a pass of its own."""
    with _opened(path) as file:
        kinds = _kinds((row for _, row in _cells(path, file)), fields)
    with _opened(path) as file:
        for place, row in _cells(path, file):
            yield place, row if isinstance(row, BrokenRow) else _typed(row, kinds)


def _cells(path: str, file: TextIO) -> Iterator[tuple[str, dict[str, str] | BrokenRow]]:
    header_line = file.readline()
    file.seek(0)
    # A comma, or what spreadsheets put between columns where commas are in numbers.
    delimiter = max(",;\t", key=re.sub(r'"[^"]*"', "", header_line).count)
    # The default cuts long descriptions off; what is too long for a row is rejected later.
    csv.field_size_limit(_LONGEST_CELL)
    table = csv.reader(file, delimiter=delimiter, strict=True)
    try:
        header = [name.strip() for name in next(table, [])]
    except csv.Error as error:
        raise BadSource(f"SOURCE {path!r} has no header that can be read: {error}") from error
    _check_columns(path, [name for name in header if name])
    while True:
        try:
            cells = next(table)
        except StopIteration:
            return
        except csv.Error as error:
            yield f"line {table.line_num}", BrokenRow(f"it is no CSV: {error}")
            continue
        if cells and len(cells) != len(header):
            yield f"line {table.line_num}", BrokenRow(f"it has {len(cells)} values for {len(header)} columns")
        elif cells:
            yield f"line {table.line_num}", {name: cell for name, cell in zip(header, cells, strict=True) if name}


def _kinds(rows: Iterable[dict[str, str] | BrokenRow], fields: ColumnTypes) -> ColumnTypes:
    """The type of each column that is not declared: the narrowest that all of its values fit."""
    kinds: ColumnTypes = {}
    for row in rows:
        for name, text in () if isinstance(row, BrokenRow) else row.items():
            if text and kinds.get(name) != "text" and name not in fields and name not in RESERVED_NAMES:
                kinds[name] = _wider(kinds.get(name), guess_type(text))
    return kinds


def _wider(one: str | None, other: str) -> str:
    if one is None or one == other:
        return other
    return "float" if {one, other} == {"int", "float"} else "text"


def _typed(row: dict[str, str], kinds: ColumnTypes) -> ManifestRow | BrokenRow:
    try:
        return {
            name: convert_value(text, kinds[name]) if text and name in kinds else text for name, text in row.items()
        }
    except ValueError as error:
        return BrokenRow(f"the file was changed while it was read ({error}); run it again")


def _json_lines(path: str, _fields: ColumnTypes) -> Iterator[Numbered]:
    with nullcontext(sys.stdin) if path == STANDARD_INPUT else _opened(path) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield f"line {number}", _json_row(line.removeprefix("\ufeff"))


def _json_row(line: str) -> ManifestRow | BrokenRow:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return BrokenRow(f"it is no JSON: {error}")
    return row if isinstance(row, dict) else BrokenRow("it is no JSON object")


def _parquet(path: str, _fields: ColumnTypes) -> Iterator[Numbered]:
    from pyarrow import ArrowException, parquet

    number = 0
    try:
        with parquet.ParquetFile(path) as table:
            _check_columns(path, table.schema_arrow.names)
            for batch in table.iter_batches(_PARQUET_ROWS):
                for row in _parquet_rows(batch):
                    number += 1
                    yield f"row {number}", row
    except ArrowException as error:
        raise BadSource(f"SOURCE {path!r} is no Parquet that can be read, after row {number}: {error}") from error


def _parquet_rows(batch: Any) -> Iterator[ManifestRow | BrokenRow]:
    """Rows as Python values; a date that Python does not know breaks its own row only."""
    try:
        yield from batch.to_pylist()
    except (ValueError, OverflowError):
        for number in range(len(batch)):
            try:
                yield batch.slice(number, 1).to_pylist()[0]
            except (ValueError, OverflowError) as error:
                yield BrokenRow(f"it holds what cannot be read: {error}")


def _opened(path: str) -> TextIO:
    # Spreadsheets put a mark before the first byte.
    return Path(path).open(encoding="utf-8-sig", newline="")


def _check_columns(path: str, names: list[str]) -> None:
    missing = [name for name in ("product_id", "image") if name not in names]
    if missing:
        raise BadSource(
            f"SOURCE {path!r} has no column {' and no '.join(missing)}; it has {', '.join(names) or 'none'}"
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadSource(f"SOURCE {path!r} has two columns of the name {', '.join(twice)}; give each its own")


READERS: dict[str, Callable[[str, ColumnTypes], Iterator[Numbered]]] = {
    STANDARD_INPUT: _json_lines,
    ".csv": _csv,
    ".tsv": _csv,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".parquet": _parquet,
}
