"""The name that a mistyped one probably stands for."""

import difflib
from collections.abc import Iterable


def find_nearest(name: str, names: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the name nearest to a mistyped one, whatever the case of its letters; None if none is near.

    `cutoff` is the lowest similarity that counts, 0 to 1: see difflib.get_close_matches.
    """
    spellings = {known.casefold(): known for known in names}
    near = difflib.get_close_matches(name.casefold(), spellings, n=1, cutoff=cutoff)
    return spellings[near[0]] if near else None
