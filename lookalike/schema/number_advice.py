"""Which option reads a text as a number, or treats it as missing; for the messages about texts among numbers."""

import shlex

from lookalike.schema.metadata import convert_value, guess_type
from lookalike.schema.numbers import PLAIN, ValueFormat

FORMATS = (
    PLAIN,
    ValueFormat(thousands=True),
    ValueFormat(decimal_comma=True),
    ValueFormat(strip_currency=True),
    ValueFormat(decimal_comma=True, strip_currency=True),
)
"""The ways to read a number, simplest first."""

_OPTIONS = {"strip_currency": "--strip-currency", "decimal_comma": "--decimal-comma", "thousands": "--thousands"}
_MAX_NULL_VALUE = 40
"""Characters of a text that may still mean that there is no value."""


def find_format(values: ValueFormat) -> int:
    """Return the index in FORMATS that reads numbers as a format does."""
    if values.strip_currency or values.decimal_comma:
        return FORMATS.index(ValueFormat(values.decimal_comma, strip_currency=values.strip_currency))
    return int(values.thousands)


def is_number(text: str, values: ValueFormat) -> bool:
    """Return whether a text is a number, and no id such as 007."""
    return guess_type(text, values) in ("int", "float")


def describe_change(given: ValueFormat, target: ValueFormat) -> str:
    """Say which options read numbers of another format; "" if there is nothing to change."""
    added = [option for name, option in _OPTIONS.items() if getattr(target, name) and not getattr(given, name)]
    leave_out = given.decimal_comma and not target.decimal_comma
    parts = [f"add {' and '.join(added)}" if added else "", "leave out --decimal-comma" if leave_out else ""]
    return " and ".join(filter(None, parts))


def suggest_null_value(text: str) -> str:
    """Write the option that treats a text as missing, as a shell takes it; "" for a text that is too long for that."""
    text = text.strip()
    quoted = shlex.quote(text) if "'" in text else f"'{text}'"
    return f"--null-value {quoted}" if len(text) <= _MAX_NULL_VALUE and text.isprintable() else ""


def advise_on_value(text: str, kind: str, given: ValueFormat) -> str:
    """Say what to do with a text that is not of the declared type `kind`; begins with a semicolon, or is empty."""
    if kind == "list":
        return ""
    for target in FORMATS if kind in ("int", "float") else ():
        change = describe_change(given, target)
        if change and _can_convert(text, kind, target):
            return f"; to read it as a number, {change}"
    option = suggest_null_value(text)
    return f"; correct it, or treat it as missing: {option}" if option else "; correct it"


def _can_convert(text: str, kind: str, values: ValueFormat) -> bool:
    try:
        convert_value(text, kind, values)
    except ValueError:
        return False
    return True
