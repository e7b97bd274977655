"""Lay out a table as lines of text; for a terminal, so that no line is wider than it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

_GAP = "  "
_MIN_WIDTH = 10
"""The width that a column of texts keeps; when not even that is there, the last columns are left out."""

_MAX_CHARACTERS_PER_CELL = 4
"""Of characters without a width of their own; what exceeds that is cut off."""


@dataclass(frozen=True, slots=True)
class TableLines:
    """The lines of a table: its header, a rule, its rows. `left_out` counts the columns for which there is no room."""

    header: str
    rule: str
    rows: list[str]
    left_out: int


def lay_out_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], width: int | None = None) -> TableLines:
    """Align the columns, numbers to the right.

    With a `width`, in terminal cells, long texts are cut in the middle, and the last columns are left out when there
    are too many. Without one nothing is lost.
    """
    cells = [[escape_controls(name) for name in columns], *([format_cell(value) for value in row] for row in rows)]
    numeric = [bool(rows) and all(isinstance(row[i], int | float) for row in rows) for i in range(len(columns))]
    widths = [max(map(_count_cells, column)) for column in zip(*cells, strict=True)]
    if width is not None:
        widths = _fit_widths(widths, numeric, max(width, 1))
    header, *body = [_join_cells(row, widths, numeric) for row in cells]
    rule = "─" * (sum(widths) + len(_GAP) * (len(widths) - 1))
    return TableLines(header, rule, body, len(columns) - len(widths))


def format_cell(value: Any) -> str:
    """Return a value as the text of a cell, on one line."""
    return escape_controls(f"{value:.4f}" if isinstance(value, float) else str(value))


def escape_controls(text: str) -> str:
    """Escape control characters, so that an id or a file name can neither break a line nor control the terminal."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def cut_middle(text: str, width: int) -> str:
    """Replace the middle of a text by … where it takes more than `width` terminal cells; a CJK character takes two."""
    if _count_cells(text) <= width:
        return text
    room = max(width - 1, 0)
    tail = _take_cells(reversed(text[-_MAX_CHARACTERS_PER_CELL * width :]), room // 2)[::-1]
    # A mark without a width would be drawn over the ….
    while tail and not _count_cells(tail[0]):
        tail = tail[1:]
    head = _take_cells(text[: _MAX_CHARACTERS_PER_CELL * width], room - room // 2)
    return f"{head}…{tail}"


def _fit_widths(natural: Sequence[int], numeric: Sequence[bool], width: int) -> list[int]:
    """Return the widths of as many of the first columns as there is room for: the widest share what is left."""
    lowest = [cells if is_number else min(cells, _MIN_WIDTH) for cells, is_number in zip(natural, numeric, strict=True)]
    # The first long texts are the ids: they keep a third of the width.
    first = next((i for i, cells in enumerate(natural) if cells > lowest[i]), 0)
    lowest[first] = max(lowest[first], min(natural[first], width // 3))
    while len(lowest) > 1 and sum(lowest) + len(_GAP) * (len(lowest) - 1) > width:
        lowest.pop()
    room = width - len(_GAP) * (len(lowest) - 1)
    if len(lowest) == 1:
        return [min(natural[0], room)]
    cap = room
    while sum(widths := _cap_widths(natural, lowest, cap)) > room:
        cap -= 1
    return widths


def _cap_widths(natural: Sequence[int], lowest: Sequence[int], cap: int) -> list[int]:
    return [max(least, min(cells, cap)) for cells, least in zip(natural, lowest, strict=False)]


def _join_cells(cells: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]) -> str:
    """Return one line. Columns without a width are left out."""
    parts = []
    for cell, width, is_number in zip(cells, widths, numeric, strict=False):
        text = cut_middle(cell, width)
        padding = " " * (width - _count_cells(text))
        parts.append(padding + text if is_number else text + padding)
    return _GAP.join(parts).rstrip()


def _take_cells(characters: Iterable[str], width: int) -> str:
    """Return the first characters that take at most `width` terminal cells."""
    taken = ""
    for character in characters:
        if _count_cells(taken + character) > width:
            break
        taken += character
    return taken


def _count_cells(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)
