"""Delete products from a collection, by id or by a filter on their metadata."""

from collections.abc import Sequence
from dataclasses import dataclass

from lookalike.schema.errors import BadSettings, UnknownProduct
from lookalike.schema.filters.ast import Condition, Filter
from lookalike.schema.filters.expression import column_in, compile_filter
from lookalike.schema.milvus.filter_check import FilterChecker
from lookalike.schema.milvus.store import Store

_MAX_NAMED = 10
"""How many unknown products an error names."""


@dataclass(frozen=True, slots=True)
class DeleteResult:
    """How many images of how many products were deleted, or would be in a dry run."""

    images: int
    products: int


def build_delete_filter(products: Sequence[str], where: Filter) -> Filter:
    """Return the filter that matches the images of `products` that pass `where`; without products, of any.

    Raises BadSettings when neither is given.
    """
    if not products and not where:
        raise BadSettings("nothing to delete: give --product ID or --where CONDITION")
    return (*where, *([Condition("product_id", "in", tuple(products))] if products else []))


def require_products(store: Store, products: Sequence[str]) -> None:
    """Raise UnknownProduct, naming them, when some products are not in the collection."""
    if not products:
        return
    rows = store.rows(where=column_in("product_id", products), fields=["product_id"])
    unknown = set(products).difference(row["product_id"] for row in rows)
    if unknown:
        named = ", ".join(repr(product) for product in sorted(unknown)[:_MAX_NAMED])
        more = f" and {len(unknown) - _MAX_NAMED} more" if len(unknown) > _MAX_NAMED else ""
        raise UnknownProduct(f"no product {named}{more} in {store.name!r}; nothing was deleted")


def find_images(store: Store, where: Filter) -> dict[str, str]:
    """Find the images that match a filter: image_id → product_id. Raises BadFilter for one that cannot match."""
    FilterChecker(store).check(where)
    rows = store.rows(where=compile_filter(where), fields=["product_id"])
    return {row["image_id"]: row["product_id"] for row in rows}


def delete_images(store: Store, image_ids: Sequence[str]) -> None:
    """Delete images by key. Raises StoreUnavailable, also when the alias moved to another version meanwhile."""
    if image_ids:
        store.delete(image_ids)
        store.flush_after(len(image_ids))
        store.require_live()
