"""Reading more rows than one Milvus response holds: in ranges or lists of keys, halved when a response is too large."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from lookalike.schema.errors import ResponseTooLarge
from lookalike.schema.filters.expression import column_in

Rows = Sequence[Mapping[str, Any]]
Fetch = Callable[[str, int], Rows]
"""Reads up to so many of the rows that match an expression. Raises ResponseTooLarge when they have too many bytes."""

_KEY_PREFIXES = 16**8
"""Keys are hashes in hexadecimal; ranges are cut by their first eight digits."""

_KEYS_PER_QUERY = 500


def fetch_by_key(
    fetch: Fetch, image_ids: Sequence[str], batch_size: int = _KEYS_PER_QUERY
) -> Iterator[Mapping[str, Any]]:
    """Read the rows that have these keys, `batch_size` keys in a query."""
    for start in range(0, len(image_ids), batch_size):
        batch = image_ids[start : start + batch_size]
        try:
            rows = fetch(column_in("image_id", batch), len(batch))
        except ResponseTooLarge:
            if len(batch) == 1:
                raise
            yield from fetch_by_key(fetch, batch, len(batch) // 2)
        else:
            yield from rows


def fetch_by_range(fetch: Fetch, where: str, window: int, pages: int) -> Iterator[Mapping[str, Any]]:
    """Read all rows that match, in about `pages` queries that return up to `window` rows each.

    The keys are hashes, so equal ranges of keys have about equally many rows.
    """
    for page in range(pages):
        yield from _fetch_range(
            fetch, where, window, _KEY_PREFIXES * page // pages, _KEY_PREFIXES * (page + 1) // pages
        )


def _fetch_range(fetch: Fetch, where: str, window: int, first: int, end: int) -> Iterator[Mapping[str, Any]]:
    """Read the rows whose keys start with first, …, end - 1, as eight hexadecimal digits."""
    # "g" sorts after every hexadecimal digit.
    in_range = f'image_id >= "{first:08x}" and image_id < "{end - 1:08x}g"'
    cannot_split = end - first == 1
    try:
        rows = fetch(f"{in_range} and ({where})" if where else in_range, window)
    except ResponseTooLarge:
        if cannot_split:
            raise
    else:
        if cannot_split or len(rows) < window:
            yield from rows
            return
    middle = (first + end) // 2
    yield from _fetch_range(fetch, where, window, first, middle)
    yield from _fetch_range(fetch, where, window, middle, end)
