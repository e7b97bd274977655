"""A table fits its terminal, whatever a shop's texts are, and loses nothing when it is piped."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from lookalike.schema.table import cut_middle, escape_controls, format_cell, lay_out_table

WIDE = "青いチェックのシャツ"
COLUMNS = ["", "product_id", "score", "title", "brand", "price", "image"]
ROW = [1, "blue-checked-shirt-with-long-sleeves", 0.98765, WIDE * 4, "Acme", 12.5, "shop/photos/shirt/blue/1.jpg"]

cells = st.one_of(st.text(max_size=60), st.integers(), st.floats(), st.just(WIDE), st.just("👩‍👩‍👧🇩🇪e\u0301"))
tables = st.integers(1, 9).flatmap(
    lambda count: st.tuples(
        st.lists(st.text(max_size=20), min_size=count, max_size=count),
        st.lists(st.lists(cells, min_size=count, max_size=count), max_size=5),
    )
)


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_table_fits_a_terminal(width: int) -> None:
    table = lay_out_table(COLUMNS, [ROW], width)
    lines = [table.header, table.rule, *table.rows]
    assert max(map(cell_len, lines)) <= width
    assert table.left_out == {40: 3, 80: 0, 200: 0}[width]
    assert "blue-" in table.rows[0]
    assert "0.9877" in table.rows[0], "a number is not cut"
    if width == 200:
        assert all(format_cell(value) in table.rows[0] for value in ROW)


def test_long_texts_are_cut_in_the_middle_and_wide_characters_count_two() -> None:
    assert cut_middle("blue-checked-shirt", 13) == "blue-c…-shirt"
    assert cut_middle("blue-checked-shirt", 18) == "blue-checked-shirt"
    assert cut_middle(WIDE, 9) == "青い…ャツ"
    assert [cut_middle("mug", width) for width in (1, 2, 3)] == ["…", "m…", "mug"]


@given(tables, st.integers(1, 250))
def test_no_line_is_wider_than_the_terminal(table: tuple[list[str], list[list[object]]], width: int) -> None:
    lines = lay_out_table(*table, width)
    assert all(cell_len(line) <= width for line in (lines.header, lines.rule, *lines.rows))
    assert len(lines.rows) == len(table[1])
    assert all(line.isprintable() for line in lines.rows)


@given(tables)
def test_nothing_is_lost_without_a_width(table: tuple[list[str], list[list[object]]]) -> None:
    lines = lay_out_table(*table)
    assert lines.left_out == 0
    assert all(escape_controls(name).strip() in lines.header for name in table[0])
    for line, row in zip(lines.rows, table[1], strict=True):
        assert all(format_cell(value).strip() in line for value in row)


@given(st.text(), st.integers(1, 80))
def test_a_cut_text_keeps_its_beginning_and_its_end(text: str, width: int) -> None:
    cut = cut_middle(escape_controls(text), width)
    assert cell_len(cut) <= width
    head, mark, tail = cut.partition("…")
    assert cut == escape_controls(text) or (mark and escape_controls(text).startswith(head))
    assert not mark or escape_controls(text).endswith(tail) or "…" in text
