"""A filter that cannot match anything is an error that says why."""

from typing import Any

import pytest
from conftest import NewStore, a_row

from lookalike.schema.errors import BadFilter
from lookalike.schema.filters.json import parse_json_filter
from lookalike.schema.filters.parser import parse_filter
from lookalike.schema.milvus import filter_check
from lookalike.schema.milvus.filter_check import FilterChecker
from lookalike.schema.milvus.store import Store

ROWS: list[dict[str, Any]] = [
    {"category": "mug", "price": 5, "size": 42, "sale": True, "tags": ["red"]},
    {"category": "bag", "price": -0.5, "size": "XL", "Größe": "L", 'pri"ce': 1},
    {},
]


@pytest.fixture(scope="module")
def store(new_store: NewStore) -> Store:
    store = new_store()
    store.upsert([a_row(str(n), f"p{n}", metadata=metadata) for n, metadata in enumerate(ROWS)])
    return store


@pytest.mark.parametrize(
    "text",
    [
        "category = mug and price < 50 or not sale = true",
        "size = 42",
        'size = "42"',
        "size < XL",
        "tags contains 5",
        "category startswith m",
        "category like %ug",
        "product_id = 5",
        "source exists",
        "tags exists",
        "category > f",
        'category in mug, "5"',
        'pri"ce = 1',
        "Größe exists",
    ],
)
def test_a_filter_that_can_match_passes(store: Store, text: str) -> None:
    checker = FilterChecker(store)
    checker.check(parse_filter([text]))
    checker.check(parse_filter([text]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "categry = mug",
            r"no product has a column 'categry'; did you mean 'category'\? \(metadata: Größe, category, ",
        ),
        ("Price < 50", r"no product has a column 'Price'; did you mean 'price'\?"),
        ("category = mug and (price < 5 or not kolour = red)", r"a column 'kolour' \(metadata: .*always: product_id"),
        ("price < fifty", r"price holds numbers, which cannot be compared with 'fifty'"),
        ("price = fifty", "price holds numbers"),
        ("category < 50", "category holds text, which cannot be compared with 50"),
        ('price < "50"', "price holds numbers"),
        ("category contains mug", r'category holds text, and `contains` looks for .* write category like "%mug%"'),
        ("price contains 5", "price holds numbers, and `contains`"),
        ("price startswith 5", "price holds numbers, and `startswith` matches text"),
        ("tags = red", "tags holds lists, which cannot be compared with 'red'; write tags contains red"),
        ('sale = "yes"', "sale holds true or false, which cannot be compared with 'yes'"),
        ("size contains 4", "size holds numbers and text, and `contains`"),
    ],
)
def test_a_filter_that_cannot_match_is_refused(store: Store, text: str, message: str) -> None:
    with pytest.raises(BadFilter, match=message):
        FilterChecker(store).check(parse_filter([text]))


def test_a_list_beyond_the_sample_is_not_refused(new_store: NewStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filter_check, "_SAMPLE", 2)
    store = new_store()
    values: list[Any] = ["red", "green", "blue", ["red"]]
    store.upsert([a_row(str(n), f"p{n}", metadata={"colour": value}) for n, value in enumerate(values)])
    FilterChecker(store).check(parse_filter(["colour contains red"]))


def test_json_too(store: Store) -> None:
    with pytest.raises(BadFilter, match="price holds numbers"):
        FilterChecker(store).check(parse_json_filter({"price": {"lt": "50"}}))


def test_a_new_column_is_found_as_soon_as_a_product_has_it(new_store: NewStore) -> None:
    store, where = new_store(), parse_filter(["brand = Acme"])
    checker = FilterChecker(store)
    checker.check(where)  # nothing to find in an empty collection
    store.upsert([a_row("0", "p0", metadata={"price": 1})])
    with pytest.raises(BadFilter, match="no product has a column 'brand'"):
        checker.check(where)
    store.upsert([a_row("1", "p1", metadata={"brand": "Acme"})])
    checker.check(where)
