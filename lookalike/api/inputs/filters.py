"""The option `where`: a filter as text, as JSON, or several of them that all have to hold."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from lookalike.api.inputs.checks import describe_type
from lookalike.schema.errors import BadFilter
from lookalike.schema.filters.ast import Filter, check_filter_size
from lookalike.schema.filters.json import parse_json_filter
from lookalike.schema.filters.parser import parse_filter

Where: TypeAlias = str | Mapping[str, Any]
"""A condition such as `price < 50`, or a filter such as `{"price": {"lt": 50}}`."""


def read_filter(where: Where | Sequence[Where] | None) -> Filter:
    """Read a filter; several all have to hold. Raises BadFilter."""
    if where is None:
        return ()
    several = [where] if isinstance(where, str | Mapping) else where
    if not isinstance(several, Sequence):
        raise BadFilter(f"where is {describe_type(where)}; it takes text, a dict, or a list of them")
    return check_filter_size(tuple(clause for one in several for clause in _read(one)))


def _read(where: object) -> Filter:
    if isinstance(where, str):
        return parse_filter([where])
    if isinstance(where, Mapping):
        return parse_json_filter(_plain(where))
    raise BadFilter(f"a filter in the list where is {describe_type(where)}; it takes text or a dict")


def _plain(value: Any, depth: int = 0) -> Any:
    """Turn what Python has besides JSON into JSON: tuples and sets into lists, numpy's numbers into numbers."""
    if depth > 64:  # deeper than any filter may be, which from_json says
        return value
    if isinstance(value, Mapping):
        return {key: _plain(inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset | np.ndarray):
        return [_plain(inner, depth + 1) for inner in value]
    return value.item() if isinstance(value, np.generic) else value
