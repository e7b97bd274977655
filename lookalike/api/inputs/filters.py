"""The parameter `where`: a filter as text, as JSON, or a list of filters that all have to hold."""

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
    """Parse a filter; of several all have to hold. Raises BadFilter."""
    if where is None:
        return ()
    filters = [where] if isinstance(where, str | Mapping) else where
    if not isinstance(filters, Sequence):
        raise BadFilter(f"where is {describe_type(where)}; it takes text, a dict, or a list of them")
    return check_filter_size(tuple(clause for one in filters for clause in _parse(one)))


def _parse(where: object) -> Filter:
    if isinstance(where, str):
        return parse_filter([where])
    if isinstance(where, Mapping):
        return parse_json_filter(_to_json(where))
    raise BadFilter(f"a filter in the list where is {describe_type(where)}; it takes text or a dict")


def _to_json(value: Any, depth: int = 0) -> Any:
    """Turn the types of Python into those of JSON: tuples and sets into lists, numpy's numbers into numbers."""
    if depth > 64:  # deeper than a filter may be; parse_json_filter refuses it
        return value
    if isinstance(value, Mapping):
        return {key: _to_json(inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset | np.ndarray):
        return [_to_json(inner, depth + 1) for inner in value]
    return value.item() if isinstance(value, np.generic) else value
