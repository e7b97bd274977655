"""Metadata columns and their types: reading values from text, and converting values to JSON."""

import json
import math
import re
from collections.abc import Callable, Iterable
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

from lookalike.schema.errors import BadSettings
from lookalike.schema.filters.expression import COLUMNS
from lookalike.schema.numbers import PLAIN, ValueFormat

_MAX_DEPTH = 50

RESERVED_NAMES = frozenset({"product_id", "image", "_"})

ColumnTypes = dict[str, str]
"""Declared columns: name → type."""


def parse_column_types(texts: Iterable[str]) -> ColumnTypes:
    """Read declarations such as `price:float`. Raises BadSettings."""
    types: ColumnTypes = {}
    for text in texts:
        name, _, kind = text.rpartition(":")
        if not name or kind not in TYPES:
            raise BadSettings(f"--field {text!r}: write NAME:TYPE, the type one of {', '.join(TYPES)}")
        if not name.isprintable() or any("\ud800" <= character <= "\udfff" for character in name):
            raise BadSettings(f"--field {text!a}: the name is not printable; rename the column")
        if name in COLUMNS:
            raise BadSettings(f"--field {text!r}: {name} is a column of the collection, and always text; leave it out")
        types[name] = kind
    return types


def convert_value(value: Any, kind: str, values: ValueFormat = PLAIN) -> Any:
    """Convert a value, or the text of one, to a declared type. Raises ValueError when that is impossible."""
    python_type = _PYTHON_TYPES[kind]
    if isinstance(value, str) and python_type is not str:
        return TYPES[kind](values.to_plain_number(value) if kind in ("int", "float") else value.strip())
    if python_type is float and type(value) is int and abs(value) < 2**1023:
        return float(value)
    if python_type is str and type(value) is int:
        return str(value)
    if type(value) is not python_type:
        raise ValueError(value)
    return value


def guess_type(text: str, values: ValueFormat = PLAIN) -> str:
    """Return the narrowest type that a text can have, for tables in which every value is text.

    Texts that are more likely ids stay text: leading zeros, `1e5`, 20 digits.
    """
    try:
        plain = values.to_plain_number(text)
    except ValueError:
        return "text"
    return next((kind for kind, pattern in _PATTERNS.items() if pattern.fullmatch(plain)), "text")


def to_plain(value: Any, depth: int = 0) -> Any:
    """Convert a value from Parquet or JSON to a JSON value; leave out members that are None.

    Raises ValueError for other types, such as bytes, and for values that are nested more than 50 deep.
    """
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deeply")
    if isinstance(value, dict):
        return {str(name): to_plain(item, depth + 1) for name, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [to_plain(item, depth + 1) for item in value]
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise ValueError(value)


def _parse_int(text: str) -> int:
    number = int(text)
    if not -(2**63) <= number < 2**63 or "_" in text:
        raise ValueError(text)
    return number


def _parse_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number) or "_" in text:
        raise ValueError(text)
    return number


def _parse_bool(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


def _parse_list(text: str) -> list[Any]:
    """Read a JSON array, or items between bars: `red|green`."""
    if not text.startswith("["):
        return [item.strip() for item in text.split("|") if item.strip()]
    try:
        items = json.loads(text)
    except RecursionError:
        raise ValueError(text) from None
    if not isinstance(items, list):
        raise ValueError(text)
    return items


TYPES: dict[str, Callable[[str], Any]] = {
    "text": str,
    "int": _parse_int,
    "float": _parse_float,
    "bool": _parse_bool,
    "list": _parse_list,
}
_PATTERNS = {
    "int": re.compile(r"0|-?[1-9][0-9]{0,17}"),
    "float": re.compile(r"0|-?[1-9][0-9]{0,9}|-?(?:0|[1-9][0-9]{0,9})\.[0-9]{1,6}"),
    "bool": re.compile(r"true|false", re.IGNORECASE),
}
_PYTHON_TYPES: dict[str, type] = {"text": str, "int": int, "float": float, "bool": bool, "list": list}
