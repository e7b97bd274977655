"""Items with the same key share one run, and outputs come in the order of the items."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.search.query_groups import run_grouped


@given(st.lists(st.integers(0, 20)))
def test_each_group_runs_once_and_outputs_keep_their_order(items: list[int]) -> None:
    runs: list[Sequence[int]] = []

    def square(group: Sequence[int]) -> list[int]:
        runs.append(group)
        return [item**2 for item in group]

    assert run_grouped(items, key=lambda item: item % 3, run=square) == [item**2 for item in items]
    assert len(runs) == len({item % 3 for item in items})
    assert all(len({item % 3 for item in group}) == 1 for group in runs)


def test_a_missing_output_is_an_error() -> None:
    with pytest.raises(ValueError, match="shorter"):
        run_grouped([1, 2], key=lambda item: 0, run=lambda group: group[1:])
