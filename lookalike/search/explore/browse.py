"""Some products of a collection, to show before there is a query."""

from lookalike.schema.filters.ast import Condition, Filter
from lookalike.schema.filters.expression import compile_filter
from lookalike.schema.milvus.store import Store
from lookalike.schema.product import Hit

_ROWS_PER_PRODUCT = 4
_KEY_PREFIXES = 16**8


def browse_products(store: Store, where: Filter, limit: int) -> list[Hit]:
    """Pick up to `limit` distinct products that match, from all over the collection; their score is 0.

    Keys are hashes, so the rows with a key below a bound are a random sample, and the same one at every call.
    """
    matching = store.count(compile_filter(where), consistency="Session")
    share = _ROWS_PER_PRODUCT * limit / max(matching, 1)
    sample = (Condition("image_id", "<", (f"{int(share * _KEY_PREFIXES):08x}",)),) if share < 1 else ()
    rows = store.fetch(
        where=compile_filter((*where, *sample)),
        fields=["product_id", "image", "metadata"],
        limit=2 * _ROWS_PER_PRODUCT * limit,
    )
    hits: dict[str, Hit] = {}
    for row in sorted(rows, key=lambda row: str(row["image_id"])):
        hit = Hit(row["product_id"], 0.0, row["image_id"], row["image"], row["metadata"])
        hits.setdefault(hit.product_id, hit)
    return list(hits.values())[:limit]
