"""From a row of a manifest, or a JSON file beside an image, to what the collection keeps of it."""

import reprlib
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from lookalike.schema.filters.expression import COLUMNS
from lookalike.schema.metadata import RESERVED_NAMES, ColumnTypes, convert_value, to_plain

ManifestRow = Mapping[str, Any]


def read_metadata(row: ManifestRow, fields: ColumnTypes) -> dict[str, Any]:
    """Keep the columns that are metadata, as their declared types. Raises ValueError with the reason."""
    metadata: dict[str, Any] = {}
    for name, value in row.items():
        # A product without a value does not have the column.
        if name in RESERVED_NAMES or value is None or value == "":
            continue
        if name in COLUMNS:
            raise ValueError(f"{name} is a column of the collection already; take another name")
        try:
            metadata[name] = convert_value(to_plain(value), fields[name]) if name in fields else to_plain(value)
        except ValueError:
            wanted = fields.get(name, "text, a number, true or false, or a list or object of them")
            raise ValueError(f"{name} is {reprlib.repr(value)}, not {wanted}") from None
    return metadata


def text_of(value: Any) -> str:
    """Read an id or a reference, empty when there is none; a table may take an id for a number."""
    if isinstance(value, float | Decimal) and value == value // 1:
        value = int(value)
    return str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
