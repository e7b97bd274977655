"""What commands share to print results: the option --format, tables, and escaping."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def format_option(*formats: str) -> Callable[[Command], Command]:
    """Add --format, whose first choice is the default."""
    return click.option(
        "--format", "output", type=click.Choice(formats), default=formats[0], show_default=True, help="How to print."
    )


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table, numbers aligned right. Long cells wrap on a terminal, never when piped."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 10_000
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for index, column in enumerate(columns):
        is_numeric = bool(rows) and all(isinstance(row[index], int | float) for row in rows)
        table.add_column(column, justify="right" if is_numeric else "left", overflow="fold")
    for row in rows:
        # Text, not str: rich would read brackets in a shop's text as markup.
        table.add_row(*(Text(_format_cell(value)) for value in row))
    console.print(table)


def _format_cell(value: Any) -> str:
    return escape_controls(f"{value:.4f}" if isinstance(value, float) else str(value))


def escape_controls(text: str) -> str:
    """Escape control characters, so that an id or a file name can neither break a line nor control the terminal."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
