"""Facets are columns with few values and columns of numbers; others are left out."""

from collections.abc import Iterable
from typing import Any

import pytest
from conftest import NewStore, a_row

from lookalike.schema.product import Metadata
from lookalike.search.explore.browse import browse_products
from lookalike.search.explore.facets import (
    MAX_FACET_VALUES,
    MAX_TRACKED_VALUES,
    Facet,
    FacetValue,
    RangeFacet,
    ValueFacet,
    count_facets,
    read_facets,
)


def facets_of_rows(*metadata: Metadata, max_tracked: int = MAX_TRACKED_VALUES) -> list[Facet]:
    """The facets of rows with this metadata, each of another product."""
    rows = ({"product_id": f"p{n}", "metadata": columns} for n, columns in enumerate(metadata))
    return count_facets(rows, max_tracked)


def facets_of_values(column: str, values: Iterable[Any], max_tracked: int = MAX_TRACKED_VALUES) -> list[Facet]:
    return facets_of_rows(*({column: value} for value in values), max_tracked=max_tracked)


def test_a_collection_has_value_facets_and_range_facets(new_store: NewStore) -> None:
    store = new_store()
    store.upsert(
        [
            a_row("1", "mug", metadata={"category": "mug", "price": 5, "sale": True}),
            a_row("2", "mug", metadata={"category": "mug", "price": 5, "sale": True}),
            a_row("3", "hat", metadata={"category": "hat", "price": 9.5}),
            a_row("4", "cap", metadata={"category": "hat", "price": 7}),
        ]
    )
    assert read_facets(store) == [
        ValueFacet("category", (FacetValue("hat", 2), FacetValue("mug", 1))),
        RangeFacet("price", 5, 9.5),
        ValueFacet("sale", (FacetValue("true", 1),)),
    ]


def test_products_are_counted_not_images() -> None:
    rows = [{"product_id": "p", "metadata": {"colour": colour}} for colour in ("red", "red", "blue")]
    assert count_facets(rows) == [ValueFacet("colour", (FacetValue("blue", 1), FacetValue("red", 1)))]


@pytest.mark.parametrize(
    "values",
    [
        [f"title {n}" for n in range(MAX_FACET_VALUES + 1)],
        ["a", ["a", "b"]],
        [{"a": 1}],
        ["a", 42],
        [True, 1],
        [7, 7],
        ["x" * 101],
        [None],
    ],
)
def test_a_column_that_makes_no_facet_is_left_out(values: list[Any]) -> None:
    assert facets_of_values("column", values) == []


def test_a_null_is_not_counted() -> None:
    assert facets_of_values("column", ["a", None]) == [ValueFacet("column", (FacetValue("a", 1),))]
    assert facets_of_values("column", range(-3, 4)) == [RangeFacet("column", -3, 3)]


def test_a_column_of_thirty_values_is_still_a_facet() -> None:
    [choices] = facets_of_values("column", [f"{n:02}" for n in range(MAX_FACET_VALUES)] * 2)
    assert isinstance(choices, ValueFacet)
    assert [choice.value for choice in choices.choices] == [f"{n:02}" for n in range(MAX_FACET_VALUES)]


def test_a_column_named_like_one_of_the_collection_is_left_out() -> None:
    assert facets_of_values("source", ["a"]) == []


def test_memory_is_bounded() -> None:
    assert facets_of_values("column", ["a", "b"] * 5, 10) == [
        ValueFacet("column", (FacetValue("a", 5), FacetValue("b", 5)))
    ]
    assert facets_of_values("column", ["a", "b"] * 6, 10) == [ValueFacet("column", (FacetValue("a"), FacetValue("b")))]
    many = facets_of_rows(*({f"c{n}": "a", "always": "b"} for n in range(1_000)))
    assert len(many) == 200
    assert many[0] == ValueFacet("always", (FacetValue("b", 1_000),))


def test_browsing_returns_distinct_products_the_same_each_time(new_store: NewStore) -> None:
    store = new_store()
    store.upsert([a_row(f"{n}", f"p{n % 100}", metadata={"even": n % 2 == 0}) for n in range(400)])
    some = browse_products(store, (), 6)
    assert len({hit.product_id for hit in some}) == 6
    assert some == browse_products(store, (), 6)
    assert len(browse_products(store, (), 1_000)) == 100
