"""Reading more rows than Milvus sends in one answer: by ranges of keys or by lists of them, in halves if need be."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from lookalike.schema.errors import ResponseTooLarge
from lookalike.schema.filters.expression import column_in

Rows = Sequence[Mapping[str, Any]]
Fetch = Callable[[str, int], Rows]
"""Reads up to so many of the rows that match an expression. Raises ResponseTooLarge when they have too many bytes."""

_KEYS = 16**8
_KEYS_IN_A_QUERY = 500


def fetch_by_key(fetch: Fetch, image_ids: Sequence[str], most: int = _KEYS_IN_A_QUERY) -> Iterator[Mapping[str, Any]]:
    """Read the rows of some keys, `most` at once."""
    for start in range(0, len(image_ids), most):
        chosen = image_ids[start : start + most]
        try:
            found = fetch(column_in("image_id", chosen), len(chosen))
        except ResponseTooLarge:
            if len(chosen) == 1:
                raise
            yield from fetch_by_key(fetch, chosen, len(chosen) // 2)
        else:
            yield from found


def fetch_by_range(fetch: Fetch, where: str, window: int, pages: int) -> Iterator[Mapping[str, Any]]:
    """Read all rows that match, of which one answer has up to `window`, in about so many pages.

    The keys are hashes, so ranges of them cut the collection into even pages.
    """
    for page in range(pages):
        yield from _range(fetch, where, window, _KEYS * page // pages, _KEYS * (page + 1) // pages)


def _range(fetch: Fetch, where: str, window: int, first: int, end: int) -> Iterator[Mapping[str, Any]]:
    """The rows whose keys start with first, …, end - 1, as eight hexadecimal digits."""
    # "g" comes after every hexadecimal digit.
    inside = f'image_id >= "{first:08x}" and image_id < "{end - 1:08x}g"'
    whole = end - first == 1
    try:
        found = fetch(f"{inside} and ({where})" if where else inside, window)
    except ResponseTooLarge:
        if whole:
            raise
    else:
        if whole or len(found) < window:
            yield from found
            return
    middle = (first + end) // 2
    yield from _range(fetch, where, window, first, middle)
    yield from _range(fetch, where, window, middle, end)
