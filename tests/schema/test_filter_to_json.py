"""A filter written as JSON means the same when it is read again."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lookalike.schema.filters.ast import OPERATORS, AnyOf, Clause, Condition, Filter, Not
from lookalike.schema.filters.json import filter_to_json, parse_json_filter

_columns = st.sampled_from(["price", "colour", "and", "or", "not", '"quoted"', 'half"', "größe"])
_values = st.one_of(st.text("ab\"' ", max_size=3), st.integers(-9, 9), st.booleans(), st.floats(-9, 9))


@st.composite
def conditions(draw: st.DrawFn) -> Condition:
    operator = draw(st.sampled_from(OPERATORS))
    kinds = st.text("ab%", max_size=3) if operator in ("startswith", "like") else _values
    values = () if operator == "exists" else tuple(draw(st.lists(kinds, min_size=1, max_size=3)))
    return Condition(draw(_columns), operator, values)


def _combine(clauses: st.SearchStrategy[Clause]) -> st.SearchStrategy[Clause]:
    filters = st.lists(clauses, min_size=1, max_size=2).map(tuple)
    return st.one_of(st.lists(filters, min_size=1, max_size=2).map(tuple).map(AnyOf), filters.map(Not))


filters: st.SearchStrategy[Filter] = st.lists(st.recursive(conditions(), _combine, max_leaves=3), max_size=4).map(tuple)


def normal_form(where: Filter) -> frozenset[Any]:
    """The clauses without their order; one spelling for each meaning."""
    return frozenset(_normal_clause(clause) for clause in where)


def _normal_clause(clause: Clause) -> Any:
    if isinstance(clause, AnyOf):
        return "or", frozenset(normal_form(alternative) for alternative in clause.alternatives)
    if isinstance(clause, Not):
        return "not", normal_form(clause.negated)
    operator = {"=": "in", "!=": "not in"}.get(clause.operator, clause.operator)
    if operator in ("in", "not in", "exists") or len(clause.values) == 1:
        return clause.column, operator, frozenset((type(value), value) for value in clause.values)
    return "or", frozenset(normal_form((Condition(clause.column, operator, (value,)),)) for value in clause.values)


@given(where=filters)
def test_a_filter_survives_json(where: Filter) -> None:
    assert normal_form(parse_json_filter(filter_to_json(where))) == normal_form(where)


def test_json_stays_short() -> None:
    where = (Condition("price", "<", (50,)), Condition("price", ">", (9,)), Condition("brand", "=", ("A",)))
    assert filter_to_json(where) == {"price": {"lt": 50}, "brand": {"in": ["A"]}, "and": [{"price": {"gt": 9}}]}
