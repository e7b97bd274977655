"""The vectors of products and images that the collection has: looked up by id, those of products cached for a while."""

import threading
from collections.abc import Collection, Iterable, Iterator, MutableMapping

import numpy as np
from cachetools import TTLCache

from lookalike.schema.errors import UnknownProduct
from lookalike.schema.filters.expression import column_in
from lookalike.schema.milvus.reader import Row
from lookalike.schema.milvus.store import Store
from lookalike.schema.product import Vector
from lookalike.search.resolved_query import PartError, ResolvedPart, mean_vector
from lookalike.search.stage_hooks import CheckDeadline, TimeStage

_MAX_IMAGES_PER_PRODUCT = 1_000
_CACHED_PRODUCTS = 10_000


class ProductVectors:
    """Looks up the vectors of products and of stored images; safe to use from several threads.

    The vector of a product is the mean direction of its images. It is cached for `cache_seconds`, 0 for not at all; the
    least recently used are evicted first.
    """

    def __init__(
        self,
        store: Store,
        *,
        cache_seconds: float,
        cache_size: int = _CACHED_PRODUCTS,
        timer: TimeStage,
        check_deadline: CheckDeadline,
    ) -> None:
        self._store = store
        self._timer = timer
        self._check_deadline = check_deadline
        self._cache: MutableMapping[str, ResolvedPart] = TTLCache(cache_size, cache_seconds)
        self._lock = threading.Lock()
        self._invalidations = 0

    def invalidate(self, product_id: str) -> None:
        """Drop the cached vector of a product that was written or deleted."""
        with self._lock:
            self._invalidations += 1
            self._cache.pop(product_id, None)

    def find_products(self, product_ids: Collection[str]) -> dict[str, ResolvedPart | PartError]:
        """Return the vector of each product, from the cache or the collection, or UnknownProduct."""
        cached = self._read_cache(product_ids)
        missing = set(product_ids) - cached.keys()
        return {**cached, **self._fetch_products(missing)} if missing else {**cached}

    def find_images(self, image_ids: Collection[str]) -> dict[str, ResolvedPart | PartError]:
        """Return the vector of each stored image, or UnknownProduct."""
        found: dict[str, ResolvedPart | PartError] = {
            image_id: UnknownProduct(f"no image {image_id!r} in {self._store.name!r}") for image_id in image_ids
        }
        if image_ids:
            self._check_deadline()
            with self._timer("lookup"):
                for row in self._store.get(sorted(image_ids), ["embedding", "product_id"]):
                    vector = mean_vector(_embeddings([row]))
                    found[row["image_id"]] = ResolvedPart(vector, frozenset({row["product_id"]}))
        return found

    def _fetch_products(self, product_ids: Collection[str]) -> dict[str, ResolvedPart | PartError]:
        invalidations = self._invalidations
        self._check_deadline()
        with self._timer("lookup"):
            rows = self._store.fetch(
                where=column_in("product_id", sorted(product_ids)),
                fields=["product_id", "embedding"],
                limit=_MAX_IMAGES_PER_PRODUCT * len(product_ids),
            )
        images: dict[str, list[Row]] = {product_id: [] for product_id in product_ids}
        # Milvus returns the rows in no order, and the sum of floats depends on it.
        for row in sorted(rows, key=lambda row: str(row["image_id"])):
            images[row["product_id"]].append(row)
        found = {product_id: self._resolve_product(product_id, rows) for product_id, rows in images.items()}
        self._write_cache(found, invalidations)
        return found

    def _resolve_product(self, product_id: str, rows: list[Row]) -> ResolvedPart | PartError:
        if not rows:
            return UnknownProduct(f"no product {product_id!r} in {self._store.name!r}; ids are spelt as in the source")
        return ResolvedPart(mean_vector(_embeddings(rows)), frozenset({product_id}), len(rows))

    def _read_cache(self, product_ids: Collection[str]) -> dict[str, ResolvedPart]:
        with self._lock:
            cached = {product_id: self._cache.get(product_id) for product_id in product_ids}
        return {product_id: part for product_id, part in cached.items() if part is not None}

    def _write_cache(self, found: dict[str, ResolvedPart | PartError], invalidations: int) -> None:
        """Cache what was found, unless a product was invalidated since: it may be the one that was just fetched."""
        with self._lock:
            if invalidations == self._invalidations:
                self._cache.update({key: part for key, part in found.items() if isinstance(part, ResolvedPart)})


def _embeddings(rows: Iterable[Row]) -> Iterator[Vector]:
    return (np.asarray(row["embedding"], dtype=np.float32) for row in rows)
