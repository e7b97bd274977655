"""A query is checked when it is made: exactly one kind for each part, and numbers in their ranges."""

import math
from typing import Any

import pytest
from conftest import DIM

from lookalike.schema.errors import BadQuery
from lookalike.search.query import Part, Query


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({}, "one of image, text"),
        ({"text": "a", "product_id": "b"}, "one of image, text"),
        ({"vector": []}, "not all of them zero"),
        ({"vector": [0.0] * DIM}, "not all of them zero"),
        ({"vector": [math.inf] * DIM}, "finite"),
        ({"text": "a", "weight": 0}, "weight 0 is not above 0"),
        ({"text": "a", "weight": math.nan}, "weight nan"),
        ({"text": "a" * 10_001}, "too long"),
    ],
)
def test_an_invalid_part_is_refused(part: dict[str, Any], message: str) -> None:
    with pytest.raises(BadQuery, match=message):
        Part(**part)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"offset": 9_991}, "offset 9991 is not between 0 and 9990"),
        ({"offset": -1}, "offset -1"),
        ({"per_product": 0}, "per_product 0"),
        ({"within": -0.1}, "within -0.1"),
        ({"min_score": 1.5}, "min_score 1.5"),
        ({"like": (Part(text="a"),) * 32}, "33 parts are too many"),
    ],
)
def test_a_number_out_of_range_is_refused(query: dict[str, Any], message: str) -> None:
    with pytest.raises(BadQuery, match=message):
        Query(product_id="p", **query)
