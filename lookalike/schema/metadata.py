"""Metadata columns and their types: what a text means, and what may stand in a column."""

import json
import math
import re
from collections.abc import Callable, Iterable
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

from lookalike.schema.errors import BadSettings
from lookalike.schema.filters.expression import COLUMNS

_DEEPEST = 50

RESERVED_NAMES = frozenset({"product_id", "image", "_"})

ColumnTypes = dict[str, str]
"""Declared columns: name → type."""


def parse_column_types(texts: Iterable[str]) -> ColumnTypes:
    """Read declarations such as `price:float`. Raises BadSettings."""
    fields: ColumnTypes = {}
    for text in texts:
        name, _, kind = text.rpartition(":")
        if not name or kind not in TYPES:
            raise BadSettings(f"--field {text!r}: write NAME:TYPE, the type one of {', '.join(TYPES)}")
        if not name.isprintable() or any("\ud800" <= character <= "\udfff" for character in name):
            raise BadSettings(f"--field {text!a}: a name is printable text")
        if name in COLUMNS:
            raise BadSettings(f"--field {text!r}: {name} is a column of the collection already, and text")
        fields[name] = kind
    return fields


def convert_value(value: Any, kind: str) -> Any:
    """Make a value one of a type, from text or from what it is. Raises ValueError when it is none."""
    wanted = _PYTHON[kind]
    if isinstance(value, str) and wanted is not str:
        return TYPES[kind](value.strip())
    if wanted is float and type(value) is int and abs(value) < 2**1023:
        return float(value)
    if type(value) is not wanted:
        raise ValueError(value)
    return value


def guess_type(text: str) -> str:
    """Find the narrowest type that a text can be, in a table where all is text.

    What is rather an id stays text: leading zeros, `1e5`, a code of 20 digits.
    """
    return next((kind for kind, pattern in _GUESSED.items() if pattern.fullmatch(text)), "text")


def to_plain(value: Any, depth: int = 0) -> Any:
    """Turn what Parquet and JSON hold into what a JSON column holds.

    Raises ValueError for bytes and the like, and for what is nested more than 50 deep.
    """
    if depth > _DEEPEST:
        raise ValueError("nested too deeply")
    if isinstance(value, dict):
        return {str(name): to_plain(part, depth + 1) for name, part in value.items() if part is not None}
    if isinstance(value, list | tuple):
        return [to_plain(part, depth + 1) for part in value]
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise ValueError(value)


def _integer(text: str) -> int:
    number = int(text)
    if not -(2**63) <= number < 2**63 or "_" in text:
        raise ValueError(text)
    return number


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number) or "_" in text:
        raise ValueError(text)
    return number


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


def _list(text: str) -> list[Any]:
    """A JSON array, or parts between bars: `red|green`."""
    if not text.startswith("["):
        return [part.strip() for part in text.split("|") if part.strip()]
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError(text) from None
    if not isinstance(found, list):
        raise ValueError(text)
    return found


TYPES: dict[str, Callable[[str], Any]] = {
    "text": str,
    "int": _integer,
    "float": _number,
    "bool": _boolean,
    "list": _list,
}
_GUESSED = {
    "int": re.compile(r"0|-?[1-9][0-9]{0,17}"),
    "float": re.compile(r"0|-?[1-9][0-9]{0,9}|-?(?:0|[1-9][0-9]{0,9})\.[0-9]{1,6}"),
    "bool": re.compile(r"true|false", re.IGNORECASE),
}
_PYTHON: dict[str, type] = {"text": str, "int": int, "float": float, "bool": bool, "list": list}
