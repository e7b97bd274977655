"""Read metadata from a row of a manifest or from the JSON file beside an image."""

import reprlib
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from lookalike.schema.filters.expression import COLUMNS
from lookalike.schema.metadata import RESERVED_NAMES, ColumnTypes, convert_value, to_plain
from lookalike.schema.number_advice import advise_on_value
from lookalike.schema.numbers import PLAIN, ValueFormat

ManifestRow = Mapping[str, Any]
"""Column name → value, as the file has it."""


def read_metadata(row: ManifestRow, fields: ColumnTypes, values: ValueFormat = PLAIN) -> dict[str, Any]:
    """Return the metadata columns of a row, converted to their declared types. Raises ValueError with the reason."""
    metadata: dict[str, Any] = {}
    for name, value in row.items():
        # A product without a value does not have the column.
        if name in RESERVED_NAMES or value is None or (isinstance(value, str) and values.is_null(value)):
            continue
        if name in COLUMNS:
            raise ValueError(f"{name} is a column of the collection already; rename it")
        try:
            plain = to_plain(value)
            metadata[name] = convert_value(plain, fields[name], values) if name in fields else plain
        except ValueError:
            raise ValueError(_describe_misfit(name, value, fields.get(name), values)) from None
    return metadata


def _describe_misfit(name: str, value: Any, kind: str | None, values: ValueFormat) -> str:
    if kind is None:
        return f"{name} is {reprlib.repr(value)}, not text, a number, true or false, or a list or object of them"
    advice = advise_on_value(value, kind, values) if isinstance(value, str) else ""
    return f"{name} is {reprlib.repr(value)}, not {kind}{advice}"


def to_text(value: Any) -> str:
    """Convert an id or an image reference to text; "" when it is none. Tables may hold an id as a number."""
    if isinstance(value, float | Decimal) and value == value // 1:
        value = int(value)
    return str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
