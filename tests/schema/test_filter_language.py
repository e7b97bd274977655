"""The filter language: and, or, not, parentheses, text patterns, and messages that mark the place."""

import re
from contextlib import suppress
from typing import Any

import pytest
from conftest import NewStore, a_row
from hypothesis import example, given
from hypothesis import strategies as st

from lookalike.schema.errors import BadFilter
from lookalike.schema.filters.ast import AnyOf, Condition, Filter, Not
from lookalike.schema.filters.expression import compile_filter
from lookalike.schema.filters.json import parse_json_filter
from lookalike.schema.filters.parser import parse_filter
from lookalike.schema.milvus.store import Store

MUG = Condition("category", "=", ("mug",))
BAG = Condition("category", "=", ("bag",))
CHEAP = Condition("price", "<", (50, "50"))
SOLD = Condition("sold", "=", (True, "true"))


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("category = mug and price < 50", (MUG, CHEAP)),
        ("category = mug AND price < 50 And sold = true", (MUG, CHEAP, SOLD)),
        ("category = mug or category = bag", (AnyOf(((MUG,), (BAG,))),)),
        ("category = mug or category = bag and price < 50", (AnyOf(((MUG,), (BAG, CHEAP))),)),
        ("(category = mug or category = bag) and price < 50", (AnyOf(((MUG,), (BAG,))), CHEAP)),
        ("price<50 and(category = mug or not(sold = true))", (CHEAP, AnyOf(((MUG,), (Not((SOLD,)),))))),
        ("not category = mug and price < 50", (Not((MUG,)), CHEAP)),
        ("not (category = mug and price < 50)", (Not((MUG, CHEAP)),)),
        ("not not category = mug", (Not((Not((MUG,)),)),)),
        (
            "category = mug and brand in (Acme, Fine) and price < 50",
            (MUG, Condition("brand", "in", ("Acme", "Fine")), CHEAP),
        ),
        ("brand in Acme, Fine or sold = true", (AnyOf(((Condition("brand", "in", ("Acme", "Fine")),), (SOLD,))),)),
        ("colour exists and not size exists", (Condition("colour", "exists"), Not((Condition("size", "exists"),)))),
        ('title = "salt and pepper" and price < 50', (Condition("title", "=", ("salt and pepper",)), CHEAP)),
        ("title = Sandy Oregano Notes", (Condition("title", "=", ("Sandy Oregano Notes",)),)),
        ("title = mug (red) and price < 50", (Condition("title", "=", ("mug (red)",)), CHEAP)),
        ("title = :)", (Condition("title", "=", (":)",)),)),
        ("title startswith Red", (Condition("title", "startswith", ("Red",)),)),
        ("sku startswith 12", (Condition("sku", "startswith", ("12",)),)),
        ("title like %mug%", (Condition("title", "like", ("%mug%",)),)),
        ('"and" = 1', (Condition("and", "=", (1, "1")),)),
        ("list price < 50 and sold = true", (Condition("list price", "<", (50, "50")), SOLD)),
    ],
)
def test_what_is_typed_is_understood(text: str, parsed: Filter) -> None:
    assert parse_filter([text]) == parsed


@pytest.mark.parametrize(
    ("text", "marked", "advice"),
    [
        ("price > 10, price < 20", "price > 10▸, price < 20", "write `and` between two conditions"),
        ("price < 9,99", "price < 9▸,99", "a decimal point in a number"),
        ("title = black and white", "title = black and ▸white", 'put text that holds "and" or "or" in double quotes'),
        ("category = mug and", "category = mug and▸", "write COLUMN OPERATOR VALUE"),
        ("category = mug price < 50", "category = mug price ▸< 50", "write `and` or `or` between two conditions"),
        ("category = mug && price < 50", "category = mug ▸&& price < 50", "write `and` or `or`"),
        ("category = ", "category =▸ ", "a value is missing here"),
        ('category = "mug', 'category = ▸"mug', "this quote is not closed"),
        ("category = 'mug'", "category = ▸'mug'", 'put text in double quotes: "mug"'),
        ("(category = mug", "(category = mug▸", "a parenthesis is not closed"),
        ("(category = mug) price < 50", "(category = mug) ▸price < 50", "write `and` or `or` here"),
        ("(category = mug))", "(category = mug)▸)", "there is no parenthesis to close"),
        ("category is mug", "▸category is mug", "write COLUMN OPERATOR VALUE"),
        ("not", "not▸", "write COLUMN OPERATOR VALUE"),
        ("(" * 50_000, "(((((((((▸(((", "nested 8 deep"),
        ("not " * 10_000 + "a = 1", "not not ", "nested 8 deep"),
    ],
)
def test_what_is_not_understood_is_marked(text: str, marked: str, advice: str) -> None:
    with pytest.raises(BadFilter) as refused:
        parse_filter([text])
    assert marked in str(refused.value)
    assert advice in str(refused.value)
    assert len(str(refused.value)) < 500


@given(
    text=st.text('ab=<>!(),"\\ \n')
    | st.lists(st.sampled_from(["and", "or", "not", "a = 1", "(", ")", "in", '"', ",", "b like %x"]), max_size=12).map(
        " ".join
    )
)
def test_every_text_is_a_filter_or_an_error_of_ours(text: str) -> None:
    with suppress(BadFilter):
        compile_filter(parse_filter([text]))


TITLES = [
    "red mug",
    "Red mug",
    "red",
    "re",
    "a red mug",
    "100%",
    "100 %",
    "a_b",
    "axb",
    "a\\b",
    "日本語",
    "日本",
    "\U0010ffff",
    "",
]


@pytest.fixture(scope="module")
def store(new_store: NewStore) -> Store:
    store = new_store()
    rows: list[dict[str, Any]] = [*({"title": title} for title in TITLES), {"title": 5}, {"title": ["red"]}, {}]
    store.upsert([a_row(str(n), f"p{n}", metadata=metadata) for n, metadata in enumerate(rows)])
    return store


def titles(store: Store, where: Filter) -> set[str]:
    rows = store.fetch(where=compile_filter(where), fields=["metadata"], limit=99)
    return {str(row["metadata"].get("title", "none")) for row in rows}


@given(prefix=st.sampled_from(TITLES) | st.text("re d%_\\\ud7ff\U0010ffff", max_size=3))
@example(prefix="\U0010ffff")
@example(prefix="日\ud7ff")
def test_startswith_is_that_of_python(store: Store, prefix: str) -> None:
    matching = {title for title in TITLES if title.startswith(prefix)}
    condition = Condition("title", "startswith", (prefix,))
    assert titles(store, (condition,)) == matching
    assert titles(store, (Not((condition,)),)) == {*TITLES, "5", "['red']", "none"} - matching
    pattern = re.sub(r"([\\%])", r"\\\1", prefix) + "%"
    assert titles(store, (Condition("title", "like", (pattern,)),)) == matching


def test_columns_of_the_collection_have_prefixes_too(store: Store) -> None:
    rows = store.fetch(
        where=compile_filter(parse_filter(["product_id startswith p1"])), fields=["product_id"], limit=99
    )
    assert {row["product_id"] for row in rows} == {"p1", *(f"p{n}" for n in range(10, 17))}


@pytest.mark.parametrize(
    ("pattern", "matching"),
    [
        ("%mug", {"red mug", "Red mug", "a red mug"}),
        ("%red%", {"red mug", "red", "a red mug"}),
        ("r%g", {"red mug"}),
        ("%_%", {"a_b"}),
        (r"%\\%", {"a\\b"}),
    ],
)
def test_like_matches_patterns(store: Store, pattern: str, matching: set[str]) -> None:
    where = (Condition("title", "like", (pattern,)),)
    if store.is_exact:
        assert titles(store, where) == matching
        assert titles(store, (Not(where),)) == {*TITLES, "5", "['red']", "none"} - matching
    else:  # version 2.3
        with pytest.raises(BadFilter, match=r"this Milvus knows `like` only with a % at the end"):
            titles(store, where)


@pytest.mark.parametrize(
    ("pattern", "matching"),
    [("a_%", {"a_b"}), (r"100\%", {"100%"}), ("a_b", {"a_b"}), (r"a\\b", {"a\\b"}), (r"100\%%", {"100%"})],
)
def test_every_milvus_matches_a_prefix_or_the_whole_text(store: Store, pattern: str, matching: set[str]) -> None:
    assert titles(store, (Condition("title", "like", (pattern,)),)) == matching


def test_json_has_both_operators() -> None:
    assert parse_json_filter({"title": {"startswith": "red"}}) == (Condition("title", "startswith", ("red",)),)
    assert parse_json_filter({"title": {"like": "%red"}}) == (Condition("title", "like", ("%red",)),)
    with pytest.raises(BadFilter, match="title startswith 5: it takes text"):
        parse_json_filter({"title": {"startswith": 5}})
