"""A filter that cannot match anything is an error that says why."""

import pytest

from lookalike.schema.errors import BadFilter
from lookalike.schema.filters.columns import ColumnKinds, add_kinds, check_columns
from lookalike.schema.filters.json import parse_json_filter
from lookalike.schema.filters.parser import parse_filter

COLUMNS: ColumnKinds = {
    "category": {"text"},
    "price": {"number"},
    "size": {"number", "text"},
    "sale": {"boolean"},
    "tags": {"list"},
    "Größe": {"text"},
}


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
    ],
)
def test_a_filter_that_can_match_passes(text: str) -> None:
    check_columns(parse_filter([text]), COLUMNS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("categry = mug", r"no column 'categry'; did you mean 'category'\? \(it has Größe, category, price"),
        ("Price < 50", r"no column 'Price'; did you mean 'price'\?"),
        ("category = mug and (price < 5 or not kolour = red)", r"no column 'kolour' \(it has"),
        ("price < fifty", r"price holds numbers, which cannot be compared with 'fifty'"),
        ("price = fifty", "price holds numbers"),
        ('price < "50"', "price holds numbers"),
        ("category contains mug", r'category holds text, and `contains` looks for .* write category like "%mug%"'),
        ("price contains 5", "price holds numbers, and `contains`"),
        ("price startswith 5", "price holds numbers, and `startswith` matches text"),
        ("tags = red", "tags holds lists, which cannot be compared with 'red'"),
        ("sale = 1", "sale holds true or false, which cannot be compared with 1"),
    ],
)
def test_a_filter_that_cannot_match_is_refused(text: str, message: str) -> None:
    with pytest.raises(BadFilter, match=message):
        check_columns(parse_filter([text]), COLUMNS)


def test_json_too() -> None:
    with pytest.raises(BadFilter, match="price holds numbers"):
        check_columns(parse_json_filter({"price": {"lt": "50"}}), COLUMNS)


def test_a_collection_without_metadata_says_so() -> None:
    with pytest.raises(BadFilter, match="it has none"):
        check_columns(parse_filter(["price < 5"]), {})


def test_kinds_are_collected() -> None:
    columns: ColumnKinds = {}
    assert add_kinds(columns, {"a": 1, "b": "x"})
    assert not add_kinds(columns, {"a": 2.5})
    assert add_kinds(columns, {"a": True, "c": [1], "d": {"e": 1}})
    assert columns == {"a": {"number", "boolean"}, "b": {"text"}, "c": {"list"}, "d": {"object"}}
