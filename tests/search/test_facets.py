"""What a collection can be narrowed by: few values, numbers, and nothing that nobody would choose from."""

from collections.abc import Iterable
from typing import Any

import pytest
from conftest import NewStore, a_row

from lookalike.schema.product import Metadata
from lookalike.search.browse import browse_products
from lookalike.search.facets import (
    MAX_FACET_VALUES,
    MAX_TRACKED_VALUES,
    Facet,
    FacetValue,
    RangeFacet,
    ValueFacet,
    count_facets,
    facets,
)


def counted(*metadata: Metadata, most_remembered: int = MAX_TRACKED_VALUES) -> list[Facet]:
    """Facets of rows, each of a product of its own."""
    rows = ({"product_id": f"p{n}", "metadata": told} for n, told in enumerate(metadata))
    return count_facets(rows, most_remembered)


def of(column: str, values: Iterable[Any], most_remembered: int = MAX_TRACKED_VALUES) -> list[Facet]:
    return counted(*({column: value} for value in values), most_remembered=most_remembered)


def test_choices_and_ranges_of_a_collection(new_store: NewStore) -> None:
    store = new_store()
    store.upsert(
        [
            a_row("1", "mug", metadata={"category": "mug", "price": 5, "sale": True}),
            a_row("2", "mug", metadata={"category": "mug", "price": 5, "sale": True}),
            a_row("3", "hat", metadata={"category": "hat", "price": 9.5}),
            a_row("4", "cap", metadata={"category": "hat", "price": 7}),
        ]
    )
    assert facets(store) == [
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
def test_what_nobody_would_choose_from_is_left_out(values: list[Any]) -> None:
    assert of("column", values) == []


def test_a_missing_value_is_no_value() -> None:
    assert of("column", ["a", None]) == [ValueFacet("column", (FacetValue("a", 1),))]
    assert of("column", range(-3, 4)) == [RangeFacet("column", -3, 3)]


def test_as_many_choices_as_can_be_read() -> None:
    [choices] = of("column", [f"{n:02}" for n in range(MAX_FACET_VALUES)] * 2)
    assert isinstance(choices, ValueFacet)
    assert [choice.value for choice in choices.choices] == [f"{n:02}" for n in range(MAX_FACET_VALUES)]


def test_a_column_that_is_named_like_one_of_ours_is_left_out() -> None:
    assert of("source", ["a"]) == []


def test_memory_is_bounded() -> None:
    assert of("column", ["a", "b"] * 5, 10) == [ValueFacet("column", (FacetValue("a", 5), FacetValue("b", 5)))]
    assert of("column", ["a", "b"] * 6, 10) == [ValueFacet("column", (FacetValue("a"), FacetValue("b")))]
    many = counted(*({f"c{n}": "a", "always": "b"} for n in range(1_000)))
    assert len(many) == 200
    assert many[0] == ValueFacet("always", (FacetValue("b", 1_000),))


def test_some_products_are_distinct_and_the_same_each_time(new_store: NewStore) -> None:
    store = new_store()
    store.upsert([a_row(f"{n}", f"p{n % 100}", metadata={"even": n % 2 == 0}) for n in range(400)])
    some = browse_products(store, (), 6)
    assert len({hit.product_id for hit in some}) == 6
    assert some == browse_products(store, (), 6)
    assert len(browse_products(store, (), 1_000)) == 100
