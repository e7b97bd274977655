"""Vectors of products are looked up in the collection, and cached until they expire or the product is written."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np
import pytest
from conftest import NewStore, a_row, unit

from lookalike.schema.errors import UnknownProduct
from lookalike.schema.milvus.store import Store
from lookalike.schema.product import Vector
from lookalike.search.product_vectors import ProductVectors
from lookalike.search.resolved_query import ResolvedPart

OLD, NEW = unit(1), unit(0, 1)


@pytest.fixture
def store(new_store: NewStore) -> Store:
    """A collection with one image each of the products a, b and c."""
    store = new_store()
    store.upsert(a_row(name, name, OLD) for name in "abc")
    return store


def vectors_of(
    store: Store,
    cache_seconds: float = 60,
    cache_size: int = 10,
    timer: Callable[[str], AbstractContextManager[object]] = nullcontext,
) -> ProductVectors:
    return ProductVectors(
        store, cache_seconds=cache_seconds, cache_size=cache_size, timer=timer, check_deadline=lambda: None
    )


def rewrite(store: Store, product_id: str) -> None:
    store.upsert([a_row(product_id, product_id, NEW)])
    store.count(consistency="Strong")  # a server acknowledges a write before searches see it


def find(products: ProductVectors, product_id: str) -> Vector:
    part = products.find_products([product_id])[product_id]
    assert isinstance(part, ResolvedPart)
    return part.vector


def test_a_product_is_the_mean_direction_of_its_images(new_store: NewStore) -> None:
    store = new_store()
    store.upsert([a_row("1", "p", unit(1)), a_row("2", "p", unit(0, 1))])
    found = vectors_of(store).find_products({"p", "none"})
    part = found["p"]
    assert isinstance(part, ResolvedPart)
    assert (part.product_ids, part.image_count) == (frozenset({"p"}), 2)
    np.testing.assert_allclose(part.vector, unit(1, 1), atol=1e-6)
    assert isinstance(found["none"], UnknownProduct)


def test_a_vector_is_cached_until_it_expires(store: Store) -> None:
    products = vectors_of(store, cache_seconds=0.5)
    assert np.array_equal(find(products, "a"), OLD)
    rewrite(store, "a")
    time.sleep(0.6)
    assert np.array_equal(find(products, "a"), NEW)


def test_zero_seconds_cache_nothing(store: Store) -> None:
    products = vectors_of(store, cache_seconds=0)
    assert np.array_equal(find(products, "a"), OLD)
    rewrite(store, "a")
    assert np.array_equal(find(products, "a"), NEW)


def test_the_least_recently_used_vector_is_evicted(store: Store) -> None:
    products = vectors_of(store, cache_size=2)
    for name in ("a", "b", "a", "c"):
        find(products, name)
    for name in "abc":
        rewrite(store, name)
    assert np.array_equal(find(products, "a"), OLD), "used since b"
    assert np.array_equal(find(products, "c"), OLD)
    assert np.array_equal(find(products, "b"), NEW), "evicted when c came"


def test_an_invalidated_product_is_looked_up_again(store: Store) -> None:
    products = vectors_of(store)
    find(products, "a")
    find(products, "b")
    for name in "ab":
        rewrite(store, name)
    products.invalidate("a")
    assert np.array_equal(find(products, "a"), NEW)
    assert np.array_equal(find(products, "b"), OLD)


def test_a_vector_that_was_read_before_a_write_is_not_cached_after_it(store: Store) -> None:
    @contextmanager
    def write_after_lookup(stage: str) -> Iterator[None]:
        yield
        rewrite(store, "a")
        products.invalidate("a")

    products = vectors_of(store, timer=write_after_lookup)
    assert np.array_equal(find(products, "a"), OLD)
    assert np.array_equal(find(products, "a"), NEW)
