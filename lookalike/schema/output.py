"""What commands share to print results: the options --format and --json, tables, CSV and JSON lines."""

import csv
import io
import json
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from lookalike.schema.errors import BadSettings
from lookalike.schema.table import escape_controls, lay_out_table

__all__ = ["escape_controls", "format_option", "print_csv", "print_json_lines", "print_records", "print_table"]

Command = TypeVar("Command", bound=Callable[..., Any])

_JSON_FLAG = "lookalike --json"
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that a spreadsheet takes for a formula."""


def format_option(*formats: str) -> Callable[[Command], Command]:
    """Add --format, whose first choice is the default, and --json, which is short for --format json."""
    choice = click.option(
        "--format",
        "output",
        type=click.Choice(formats),
        default=formats[0],
        show_default=True,
        callback=_choose_format,
        help="How to print.",
    )
    # Eager: it is read before --format, wherever it stands.
    short = click.option(
        "--json", is_flag=True, is_eager=True, expose_value=False, callback=_note_json, help="Short for --format json."
    )
    return lambda command: choice(short(command))


def _note_json(context: click.Context, _parameter: click.Parameter, is_given: bool) -> None:
    context.meta[_JSON_FLAG] = is_given


def _choose_format(context: click.Context, parameter: click.Parameter, output: str) -> str:
    if not context.meta.get(_JSON_FLAG):
        return output
    source = context.get_parameter_source(parameter.name or "")
    if source is ParameterSource.COMMANDLINE and output != "json":
        raise BadSettings(f"--json and --format {output} contradict each other; give one of them")
    return "json"


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table, numbers aligned right. It fits a terminal; piped, nothing is cut."""
    table = lay_out_table(columns, rows, shutil.get_terminal_size().columns if sys.stdout.isatty() else None)
    click.secho(table.header, bold=True)
    click.echo("\n".join([table.rule, *table.rows]))
    if table.left_out:
        click.echo(f"{table.left_out} column{'s' * (table.left_out > 1)} more: --format json")


def print_json_lines(records: Iterable[Mapping[str, Any]]) -> None:
    """Print a JSON object a line."""
    for record in records:
        click.echo(json.dumps(record))


def print_records(output: str, records: Sequence[Mapping[str, Any]]) -> None:
    """Print records with the same keys as jsonl or csv."""
    if output == "jsonl":
        print_json_lines(records)
    else:
        print_csv([*records[0]], [[*record.values()] for record in records])


def print_csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print CSV with a header; values that are no text are JSON, missing ones (None) empty.

    No value is changed, so that other programs read the same ids. Where a spreadsheet would take a text for a formula,
    a warning says so. Only at a terminal are control characters escaped.
    """
    written, formulas = io.StringIO(), 0
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_format_csv_cell(value) for value in row])
        formulas += sum(isinstance(value, str) and value.startswith(_FORMULA_STARTS) for value in row)
    text = written.getvalue()
    if sys.stdout.isatty():
        text = "\n".join(escape_controls(line) for line in text.split("\n"))
    click.echo(text, nl=False)
    if formulas:
        click.echo(
            f"{formulas} cell{'s' * (formulas > 1)} may start a formula in a spreadsheet (=, +, -, @): "
            "import the columns as text",
            err=True,
        )


def _format_csv_cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
