"""The result of a search."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, overload

from lookalike.schema.product import Hit

if TYPE_CHECKING:
    import pandas as pd

_MAX_SHOWN = 3


class Result(Sequence[Hit]):
    """The hits of a search, best first: a sequence of Hit that draws itself in a notebook.

    `took_ms` is the time that Milvus and the encoder took. `next_offset` is where the next page starts, None after the
    last one.

    >>> result = shop.search(product="red-plain-mug", where="category = mug", limit=3)
    >>> len(result)
    3
    >>> [hit.metadata["category"] for hit in result]
    ['mug', 'mug', 'mug']
    >>> result.next_offset
    3
    """

    def __init__(
        self, hits: Sequence[Hit], took_ms: float, next_offset: int | None, load: Callable[[str], bytes]
    ) -> None:
        self.took_ms = took_ms
        self.next_offset = next_offset
        self._hits = tuple(hits)
        self._load = load

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> "Result": ...
    def __getitem__(self, index: int | slice) -> "Hit | Result":
        if isinstance(index, slice):
            return Result(self._hits[index], self.took_ms, self.next_offset, self._load)
        return self._hits[index]

    def __len__(self) -> int:
        return len(self._hits)

    def __repr__(self) -> str:
        first = [f"{hit.product_id} {hit.score:.3f}" for hit in self._hits[:_MAX_SHOWN]]
        return f"<Result of {self._caption()}: {', '.join(first)}{', …' if len(self) > _MAX_SHOWN else ''}>"

    def to_pandas(self) -> "pd.DataFrame":
        """Return a pandas.DataFrame: a row for each hit, a column for each metadata field.

        >>> list(shop.search(product="red-plain-mug", limit=3).to_pandas())
        ['product_id', 'score', 'image_id', 'image', 'category']
        """
        from lookalike.api.results.tables import to_pandas

        return to_pandas(self._hits)

    def to_arrow(self) -> Any:
        """Return a pyarrow.Table with the same columns; a field of mixed types becomes JSON text.

        >>> shop.search(product="red-plain-mug", limit=3).to_arrow().num_rows
        3
        """
        from lookalike.api.results.tables import to_arrow

        return to_arrow(self._hits)

    def _repr_html_(self) -> str:
        """Draw the hits as cards with their images inline. Jupyter calls it."""
        from lookalike.api.results.cards import draw_cards

        return draw_cards(self._hits, self._caption(), self._load)

    def _caption(self) -> str:
        return f"{len(self)} hit{'' if len(self) == 1 else 's'} in {self.took_ms:.1f} ms"
