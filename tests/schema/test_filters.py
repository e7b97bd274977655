"""A filter matches the same rows on Milvus as in Python, whatever its values are."""

import json
import math
from typing import Any

import pytest
from conftest import NewStore, a_row
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lookalike.schema.errors import BadFilter
from lookalike.schema.filters.ast import OPERATORS, AnyOf, Clause, Condition, Filter, Not, Scalar
from lookalike.schema.filters.expression import compile_filter
from lookalike.schema.filters.json import parse_json_filter
from lookalike.schema.filters.parser import parse_filter
from lookalike.schema.milvus.store import Store

HOSTILE = [
    "",
    " ",
    '"',
    "'",
    "\\",
    '\\"',
    '" or "" == "',
    "a\nb\tc\r",
    "%",
    "a%",
    "_",
    "{}",
    "é",
    "e\u0301",
    "日本",
    "😀",
]
HOSTILE += ["true", "5", "5.0", "null", "x" * 10_000, "\\u0041", "]", "metadata", "\x01", "#", "$meta"]
COLUMNS = ["text", "number", "tags", 'pri"ce', "a b", "back\\slash", "l'été", "x.y", "[0]"]


ROWS: list[dict[str, Any]] = [
    *({"text": text, 'pri"ce': text, "back\\slash": text} for text in HOSTILE),
    *({"number": number, "a b": number, "l'été": number} for number in (-3, 0, 1, 5, 5.0, 5.5, 2**53 + 1, 1e300)),
    *({"tags": tags} for tags in (["a", "b"], [], [1, 2.5], HOSTILE[:9], [5.0], ['"'])),
    *({"x.y": flag, "[0]": "set"} for flag in (True, False)),
    {},
]


@pytest.fixture(scope="module")
def store(new_store: NewStore) -> Store:
    store = new_store()
    store.upsert([a_row(str(n), f"p{n}", metadata=metadata) for n, metadata in enumerate(ROWS)])
    return store


def fetch_ids(store: Store, where: Filter) -> set[str]:
    rows = store.fetch(where=compile_filter(where), fields=["product_id"], limit=999)
    return {str(row["product_id"]) for row in rows}


def is_equal(one: Any, other: Scalar) -> bool:
    """Equal and of one type: 5 equals 5.0, but neither "5" nor true."""
    return kind(one) == kind(other) and bool(one == other)


def kind(value: Any) -> str:
    return "number" if type(value) in (int, float) else type(value).__name__


def matches(metadata: dict[str, Any], clause: Clause) -> bool:
    """Evaluate a clause in Python, as the docstring of filters/ast.py defines it."""
    if isinstance(clause, Not):
        return not all(matches(metadata, inner) for inner in clause.negated)
    if isinstance(clause, AnyOf):
        return any(all(matches(metadata, inner) for inner in alternative) for alternative in clause.alternatives)
    return matches_condition(metadata, clause)


def matches_condition(metadata: dict[str, Any], condition: Condition) -> bool:
    if condition.column not in metadata:
        return False
    value = metadata[condition.column]
    if condition.operator == "exists":
        return True
    if condition.operator in ("=", "in"):
        return any(is_equal(value, other) for other in condition.values)
    if condition.operator in ("!=", "not in"):
        return not any(is_equal(value, other) for other in condition.values)
    if condition.operator == "contains":
        return isinstance(value, list) and any(is_equal(item, other) for item in value for other in condition.values)
    return any(kind(value) == kind(other) and compare(value, condition.operator, other) for other in condition.values)


def compare(one: Any, operator: str, other: Any) -> bool:
    if isinstance(one, str):
        one, other = one.encode(), other.encode()  # UTF-8 sorts by code point
    if operator == "startswith":
        return bool(one.startswith(other))
    return bool({"<": one < other, "<=": one <= other, ">": one > other, ">=": one >= other}[operator])


@st.composite
def conditions(draw: st.DrawFn) -> Condition:
    column = draw(st.sampled_from(COLUMNS))
    operator = draw(st.sampled_from(sorted({*OPERATORS} - {"like"})))  # test_filter_language.py has its patterns
    texts = st.sampled_from(HOSTILE) | st.text(
        st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20
    )
    numbers = st.sampled_from([-3, 0, 1, 5, 5.0, 5.5, 2**53 + 1, 1e300]) | st.integers(-9, 9)
    one = texts if operator == "startswith" else draw(st.sampled_from([texts, numbers]))
    count = 0 if operator == "exists" else draw(st.integers(1, 3)) if operator.endswith("in") else 1
    return Condition(column, operator, tuple(draw(one) for _ in range(count)))


def combined(clauses: st.SearchStrategy[Clause]) -> st.SearchStrategy[Clause]:
    several = st.lists(clauses, min_size=1, max_size=3).map(tuple)
    return several.map(Not) | st.lists(several, min_size=1, max_size=3).map(lambda filters: AnyOf(tuple(filters)))


clauses: st.SearchStrategy[Clause] = st.recursive(conditions(), combined, max_leaves=8)


@settings(max_examples=300)
@given(where=st.lists(clauses, min_size=1, max_size=3).map(tuple))
@example(where=(Condition("text", "=", ('" or "" == "',)),))
@example(where=(Condition("text", "!=", ("\\",)),))
@example(where=(Condition("text", "in", tuple(HOSTILE)),))
@example(where=(Condition("tags", "contains", (1.0,)),))
@example(where=(Condition("tags", "contains", (5,)),))
@example(where=(Condition("number", "=", (2**53 + 1,)),))
def test_a_filter_matches_the_same_rows_as_in_python(store: Store, where: Filter) -> None:
    expected = {f"p{n}" for n, metadata in enumerate(ROWS) if all(matches(metadata, clause) for clause in where)}
    assert fetch_ids(store, where) == expected


def test_true_and_false_are_compared(store: Store) -> None:
    assert fetch_ids(store, parse_filter(["x.y = true"])) == {f"p{ROWS.index({'x.y': True, '[0]': 'set'})}"}
    assert fetch_ids(store, parse_filter(["x.y != true"])) == {f"p{ROWS.index({'x.y': False, '[0]': 'set'})}"}


@pytest.mark.parametrize("word", ["p1", 'x" or image_id != "', "\\"])
def test_the_columns_of_the_collection_can_be_filtered(store: Store, word: str) -> None:
    expected = {word} & {f"p{n}" for n in range(len(ROWS))}
    assert fetch_ids(store, (Condition("product_id", "=", (word,)),)) == expected
    assert len(fetch_ids(store, (Condition("product_id", "not in", (word,)),))) == len(ROWS) - len(expected)


@pytest.mark.parametrize(
    ("text", "column", "operator", "values"),
    [
        ("category = Apple", "category", "=", ("Apple",)),
        ("category == Apple", "category", "=", ("Apple",)),
        ("price<50", "price", "<", (50, "50")),
        ("price >= -0.5", "price", ">=", (-0.5, "-0.5")),
        ('size = "42"', "size", "=", ("42",)),
        ("sku = 007", "sku", "=", ("007",)),
        ("sold = true", "sold", "=", (True, "true")),
        ('brand in Acme, "Fine, Ltd"', "brand", "in", ("Acme", "Fine, Ltd")),
        ("brand not  in [a, b]", "brand", "not in", ("a", "b")),
        ('size in 5", 6", "7, 8"', "size", "in", ('5", 6"', "7, 8")),
        ('size in "5", 6"', "size", "in", ("5", '6"')),
        ("x in " + '"\\' * 29_000, "x", "in", ('"\\' * 29_000,)),
        ("tags contains red", "tags", "contains", ("red",)),
        ("colour exists", "colour", "exists", ()),
        ("title = not in stock", "title", "=", ("not in stock",)),
        ('"made in" = China', "made in", "=", ("China",)),
        ('name = "a \\"quoted\\" word"', "name", "=", ('a "quoted" word',)),
        ('name = ""', "name", "=", ("",)),
        ("n = 99999999999999999999", "n", "=", (1e20, "99999999999999999999")),
    ],
)
def test_a_filter_is_parsed_from_text(text: str, column: str, operator: str, values: tuple[Scalar, ...]) -> None:
    assert parse_filter([text]) == (Condition(column, operator, values),)


@pytest.mark.parametrize("text", ["", "foo", "= 3", "x in", "x in ,", 'x = "a"b"', "x = 1e999", "\udcff = 1"])
def test_an_invalid_filter_is_refused(text: str) -> None:
    with pytest.raises(BadFilter):
        compile_filter(parse_filter([text]))


def test_the_error_shows_what_to_write() -> None:
    with pytest.raises(BadFilter, match=r"filter '▸price ~ 5' was not understood at character 1.*'price < 50'"):
        parse_filter(["price ~ 5"])
    with pytest.raises(BadFilter, match="true and false have no order; use ="):
        compile_filter(parse_filter(["sold < true"]))
    with pytest.raises(BadFilter, match="too many"):
        parse_filter(["x in " + ",".join(map(str, range(2_000)))])


def test_a_number_that_milvus_cannot_store_is_refused() -> None:
    with pytest.raises(BadFilter, match="cannot store such a value"):
        Condition("price", "<", (math.inf,))
    with pytest.raises(BadFilter, match="cannot store such a value"):
        Condition("price", "<", (-(2**63),))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({}, ()),
        ({"category": "shoes"}, (Condition("category", "=", ("shoes",)),)),
        ({"price": {"gte": 10, "lt": 50}}, (Condition("price", ">=", (10,)), Condition("price", "<", (50,)))),
        ({"brand": {"in": ["a", "b"]}}, (Condition("brand", "in", ("a", "b")),)),
        (
            {"brand": {"not_in": ["a"]}, "n": {"ne": 5}},
            (Condition("brand", "not in", ("a",)), Condition("n", "!=", (5,))),
        ),
        ({"tags": {"contains": "red"}}, (Condition("tags", "contains", ("red",)),)),
        ({"sale": {"exists": True}}, (Condition("sale", "exists"),)),
        ({"sale": {"exists": False}}, (Not((Condition("sale", "exists"),)),)),
        ({"or": [{"a": 1}, {"b": "x"}]}, (AnyOf(((Condition("a", "=", (1,)),), (Condition("b", "=", ("x",)),))),)),
        ({"and": [{"a": 1}, {"a": 2}]}, (Condition("a", "=", (1,)), Condition("a", "=", (2,)))),
        ({"not": {"a": 1, "b": 2}}, (Not((Condition("a", "=", (1,)), Condition("b", "=", (2,)))),)),
        ({'"or"': True}, (Condition("or", "=", (True,)),)),
    ],
)
def test_a_filter_is_parsed_from_json(value: dict[str, Any], expected: Filter) -> None:
    assert parse_json_filter(value) == expected
    if value:
        assert parse_filter([json.dumps(value)]) == expected, "the command line takes JSON too"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "a filter is an object"),
        ({"a": None}, r'cannot be compared with None.*"exists": false'),
        ({"a": [1, 2]}, "cannot be compared"),
        ({"a": {}}, "has no condition"),
        ({"a": {"near": "x"}}, "'near' is no operator; use one of eq, ne"),
        ({"a": {"in": "x"}}, "in takes a list of values, not 'x'"),
        ({"a": {"in": []}}, "wrong number of values"),
        ({"a": {"exists": 1}}, "no operator"),
        ({"a": {"lt": True}}, "have no order"),
        ({"or": {"a": 1}}, '"or" takes a list'),
        ({"or": []}, "one is empty, or none at all"),
        ({"or": [{}]}, "one is empty"),
        ({"not": {}}, "negation of nothing"),
        ({"": 1}, "needs the name of a column"),
        ({"a": 10**30}, "cannot store such a value"),
        ({"a": math.nan}, "cannot store such a value"),
        ({"or": [{"a": n, "b": n} for n in range(51)]}, "102 conditions are too many"),
        ({"and": [{"a": {"in": list(range(600))}}] * 2}, "1200 values in one filter are too many"),
        ({"a": "x" * 70_000}, "longer than 60000"),
    ],
)
def test_an_invalid_filter_in_json_is_refused(value: Any, message: str) -> None:
    with pytest.raises(BadFilter, match=message):
        compile_filter(parse_json_filter(value))


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {"a": 1}
    for _ in range(depth - 1):
        value = {"not": value}
    return value


def test_a_filter_may_be_nested_eight_deep() -> None:
    assert parse_json_filter(nested(8))
    for depth in (9, 2_000):
        with pytest.raises(BadFilter, match="nested too deep; 8 levels is the limit"):
            parse_json_filter(nested(depth))


def test_a_filter_may_have_a_thousand_values(store: Store) -> None:
    where = parse_json_filter({"number": {"in": list(range(1_000))}})
    assert fetch_ids(store, where) == {f"p{n}" for n, row in enumerate(ROWS) if row.get("number") in (0, 1, 5)}
