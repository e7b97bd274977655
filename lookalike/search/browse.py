"""Some products of a collection, for those who have nothing to ask with yet."""

from lookalike.schema.filters.ast import Condition, Filter
from lookalike.schema.filters.expression import compile_filter
from lookalike.schema.milvus.store import Store
from lookalike.schema.product import Hit

_ROWS_A_PRODUCT = 4
_KEYS = 16**8


def browse_products(store: Store, where: Filter, most: int) -> list[Hit]:
    """Pick up to `most` distinct products that match, from all over the collection; the score is 0.

    The keys are hashes: those below a bound are a sample, the same one each time.
    """
    matching = store.count(compile_filter(where), consistency="Session")
    share = _ROWS_A_PRODUCT * most / max(matching, 1)
    some = (Condition("image_id", "<", (f"{int(share * _KEYS):08x}",)),) if share < 1 else ()
    rows = store.fetch(
        where=compile_filter((*where, *some)),
        fields=["product_id", "image", "metadata"],
        limit=2 * _ROWS_A_PRODUCT * most,
    )
    found: dict[str, Hit] = {}
    for row in sorted(rows, key=lambda row: str(row["image_id"])):
        found.setdefault(
            row["product_id"],
            Hit(row["product_id"], 0.0, row["image_id"], row["image"], row["metadata"]),
        )
    return list(found.values())[:most]
