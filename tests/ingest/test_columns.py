"""A run states the types of the columns, and says which filters would find nothing, and why."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from catalogue import draw
from command import lookalike as run
from pyarrow import parquet

import lookalike
from lookalike.ingest.reports.column_advice import describe_columns
from lookalike.ingest.reports.column_tally import ColumnTally
from lookalike.ingest.sources.open import open_source
from lookalike.schema.errors import BadQuery
from lookalike.schema.metadata import ColumnTypes
from lookalike.schema.numbers import PLAIN, ValueFormat
from lookalike.schema.product import ProductImage

PRICES = [*(f"{n}.5" for n in range(11)), "on request"]
COMMA = ValueFormat(decimal_comma=True)


def write_csv(path: Path, *columns: tuple[str, list[Any]], draws: bool = False) -> Path:
    """Write a manifest with a row for each value: product p0 with image 0.png, p1, …"""
    rows = [["product_id", "image", *(name for name, _ in columns)]]
    rows += [[f"p{n}", f"{n}.png", *map(str, values)] for n, values in enumerate(zip(*(v for _, v in columns)))]  # noqa: B905
    path.write_text("\n".join(";".join(row) for row in rows), encoding="utf-8")
    for n in range(len(rows) - 1) if draws else ():
        draw(path.parent / f"{n}.png", n)
    return path


def write_json_lines(path: Path, values: list[Any]) -> Path:
    rows = [{"product_id": f"p{n}", "image": f"{n}.png", "x": value} for n, value in enumerate(values)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def write_parquet(path: Path, values: list[Any]) -> Path:
    rows = [{"product_id": f"p{n}", "image": f"{n}.png", "x": value} for n, value in enumerate(values)]
    parquet.write_table(pa.Table.from_pylist(rows), path)
    return path


def tally(
    source: Path, *, layout: str | None = None, fields: ColumnTypes | None = None, values: ValueFormat = PLAIN
) -> ColumnTally:
    counted = ColumnTally()
    for item in open_source(str(source), layout, None, fields or {}, values).images():
        assert isinstance(item, ProductImage)
        counted.add(item)
    return counted


def warnings(values: list[Any], path: Path, fields: ColumnTypes | None = None, given: ValueFormat = PLAIN) -> list[str]:
    write_csv(path / "c.csv", ("x", values))
    counted = tally(path / "c.csv", fields=fields, values=given)
    return list(describe_columns(counted, fields or {}, given))


def test_the_types_of_columns_are_stated_for_every_source(tmp_path: Path) -> None:
    csv = write_csv(tmp_path / "c.csv", ("price", [1, 2.5]), ("name", ["a", "1"]), ("sale", ["true", "FALSE"]))
    assert tally(csv).list_types() == {"name": "text", "price": "float", "sale": "bool"}
    lines = write_json_lines(tmp_path / "c.jsonl", [1, 2.5, "x", ["a"], {"b": 1}, True, None])
    assert tally(lines).list_types() == {"x": "bool or float or list or object or text"}
    assert tally(write_parquet(tmp_path / "c.parquet", [1, 2])).list_types() == {"x": "int"}
    draw(tmp_path / "photos" / "mug" / "m1" / "9.5" / "1.png", 1)
    (tmp_path / "photos" / "mug" / "m1" / "9.5" / "1.json").write_text('{"tags": ["red"]}')
    layout = "{category}/{product_id}/{price:float}/{image}"
    types = tally(tmp_path / "photos", layout=layout).list_types()
    assert types == {"category": "text", "price": "float", "tags": "list"}


def test_a_million_images_of_many_shapes_are_counted_exactly(tmp_path: Path) -> None:
    rows = [{f"c{n % 1_500}": n, "all": n / 2} for n in range(6_000)]
    counted = ColumnTally()
    for n, row in enumerate(rows):
        counted.add(ProductImage.named("s", f"p{n}", "i", "i", row))
    columns = counted.columns
    assert columns["all"].numbers == 6_000
    assert all(columns[f"c{n}"].numbers == 4 for n in range(1_500))


def test_one_text_among_numbers_is_reported_with_its_row_and_the_options(tmp_path: Path) -> None:
    [warning] = warnings(PRICES, tmp_path)
    assert warning == (
        "x is text: 11 of 12 values are numbers; not numbers: 'on request' (product p11, line 13). To find it by "
        "number, treat this text as missing: --null-value 'on request'; or reject the rows: --field x:float. "
        "If it is text on purpose: --field x:text"
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["5", "6", "n/a"], "2 of 3 values are numbers; not numbers: 'n/a'"),
        (["5"] * 50 + ["n/a"] * 50, "50 of 100 values are numbers; not numbers: 'n/a' (product p50, line 52). To"),
        (["5"] * 50 + ["n/a", "-", "ask", "x", "y"], "not numbers: 'n/a' (product p50, line 52), '-' (product p51, "),
        (
            ["5"] * 50 + ["n/a", "-", "ask", "x", "y"],
            ", …. To find it by number, treat such texts as missing: --null-value T",
        ),
        (["5"] * 50 + ["n/a"], "or reject the rows: --field x:int"),
        (["€ 12.50", "€ 9"], "all 2 values are numbers such as '€ 12.50' (product p0, line 2). Add --strip-currency"),
        (["12,50", "9,5"], "Add --decimal-comma"),
        (["1.234,50 €", "9,5 €"], "Add --strip-currency and --decimal-comma"),
        (["1,299.00", "9.50"], "Add --thousands"),
        (["1,299.00", "9.50", "ask"], "Add --thousands, and treat this text as missing: --null-value 'ask'; or"),
    ],
)
def test_numbers_that_are_text_are_reported(tmp_path: Path, values: list[str], message: str) -> None:
    [warning] = warnings(values, tmp_path)
    assert warning.startswith("x is text: ")
    assert message in warning


@pytest.mark.parametrize(
    "values",
    [
        ["red", "green"],
        ["S", "M", "42", "43"],
        ["42"],
        ["42", "M"],
        ["4000", "4001", "007"],  # ids
        ["4000", "4001", "1e5"],
        ["1.5", "2"],
        ["true", "false"],
        ["A1", "A2", "A3"],
        [*("word" + str(n) for n in range(1_100)), *map(str, range(900))],
    ],
)
def test_text_and_numbers_that_are_as_they_should_be_are_not(tmp_path: Path, values: list[str]) -> None:
    assert warnings(values, tmp_path) == []


def test_an_option_or_a_declaration_ends_the_warning(tmp_path: Path) -> None:
    assert warnings(PRICES, tmp_path, {"x": "text"}) == []
    assert warnings(PRICES, tmp_path, given=ValueFormat(null_values=frozenset({"on request"}))) == []
    assert warnings(["1.234,50", "9,5"], tmp_path, given=COMMA) == []
    assert tally(tmp_path / "c.csv", values=COMMA).list_types() == {"x": "float"}
    [warning] = warnings(["9.5", "8.5"], tmp_path, given=COMMA)
    assert warning.endswith("such as '9.5' (product p0, line 2). Leave out --decimal-comma")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([12, "12", 13.5], "x is text in 1 of 3 values: all 3 values are numbers such as '12' (product p1, line 2). "),
        ([12, "12", 13.5], "Declare it: --field x:float"),
        (
            ["9.50", "8.25"],
            "x is text: all 2 values are numbers such as '9.50' (product p0, line 1). Declare it: --field",
        ),
        (
            [12, 13, "on request"],
            "x is text in 1 of 3 values: 2 of 3 values are numbers; not numbers: 'on request' (prod",
        ),
        (
            ["red", ["red", "blue"], ["x"]],
            "x has values of several types (list 2, text 1), for example 'red' (product p0",
        ),
        (
            [True, 1, 1],
            "x has values of several types (int 2, bool 1), for example True (product p0, line 1). A filter",
        ),
    ],
)
@pytest.mark.parametrize("declared", [False, True])
def test_mixed_types_are_reported(tmp_path: Path, values: list[Any], message: str, declared: bool) -> None:
    counted = tally(write_json_lines(tmp_path / "c.jsonl", values))
    found = list(describe_columns(counted, {"x": "float"} if declared else {}, PLAIN))
    assert len(found) == (not declared)
    assert declared or message in found[0]


@pytest.mark.parametrize("values", [["4006381333931", "4006381333932"], [42, "XL", "M", "L"], [1, 2.5], [[1], []]])
def test_types_that_are_meant_are_not(tmp_path: Path, values: list[Any]) -> None:
    assert not list(describe_columns(tally(write_json_lines(tmp_path / "c.jsonl", values)), {}, PLAIN))


def test_options_and_declarations_work_for_every_source(tmp_path: Path) -> None:
    values = ValueFormat(decimal_comma=True, strip_currency=True, null_values=frozenset({"on request"}))
    texts = ["1.234,50 €", "on request", "9"]
    expected: list[dict[str, Any]] = [{"x": 1234.5}, {}, {"x": 9.0}]

    def read(path: Path, layout: str | None = None) -> list[dict[str, Any]]:
        images = open_source(str(path), layout, None, {"x": "float"}, values).images()
        return [dict(image.metadata) for image in images if isinstance(image, ProductImage)]

    assert read(write_csv(tmp_path / "c.csv", ("x", texts))) == expected
    assert read(write_json_lines(tmp_path / "c.jsonl", texts)) == expected
    assert read(write_parquet(tmp_path / "c.parquet", texts)) == expected
    for n, text in enumerate(texts):
        draw(tmp_path / "beside" / f"{n}.png", n).with_suffix(".json").write_text(json.dumps({"x": text}))
        draw(tmp_path / "layout" / f"p{n}" / text / "1.png", n)
    assert read(tmp_path / "beside") == expected
    assert read(tmp_path / "layout", "{product_id}/{x}/{image}") == expected


@pytest.mark.parametrize("write", [write_json_lines, write_parquet])
def test_a_declared_text_takes_whole_numbers(tmp_path: Path, write: Callable[[Path, list[Any]], Path]) -> None:
    path = write(tmp_path / ("c.jsonl" if write is write_json_lines else "c.parquet"), [4006381333931, 7])
    images = open_source(str(path), None, None, {"x": "text"}).images()
    assert [image.metadata["x"] for image in images if isinstance(image, ProductImage)] == ["4006381333931", "7"]


def test_the_command_states_types_and_warnings(tmp_path: Path) -> None:
    write_csv(tmp_path / "c.csv", ("price", PRICES), draws=True)
    common = ("ingest", "c.csv", "--encoder", "pixels")
    advice = b"warning: price is text: 11 of 12 values are numbers; not numbers: 'on request' (product p11, line 13)."

    planned = run(*common, "--dry-run", cwd=tmp_path)
    done = run(*common, "--report", "r.jsonl", cwd=tmp_path)
    summary = json.loads(run(*common, "--format", "json", cwd=tmp_path).stdout)

    for printed in (planned, done):
        assert printed.stdout.endswith(b"\ncolumns: price text\n")
        assert advice in printed.stderr
    remarks = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert [line["text"] for line in remarks if line["event"] == "remark"] == summary["warnings"]
    assert summary["columns"] == {"price": "text"}
    assert summary["warnings"][0].startswith(advice.decode().removeprefix("warning: "))

    done = run(*common, "--null-value", "on request", cwd=tmp_path)
    assert done.stdout.endswith(b"\ncolumns: price float\n")
    assert b"warning" not in done.stderr
    found = run("search", "--product", "p11", "--where", "price < 3", "--format", "ids", cwd=tmp_path)
    assert sorted(found.stdout.split()) == [b"p0", b"p1", b"p2"]
    again = run(*common, cwd=tmp_path, LOOKALIKE_NULL_VALUE="n/a|on request", LOOKALIKE_STRIP_CURRENCY="1")
    assert b" 12 unchanged" in again.stdout

    done = run(*common, "--field", "price:float", cwd=tmp_path)
    rejected = (
        b"rejected 'line 13: 11.png': price is 'on request', not float; correct it, or treat it as missing: --null"
    )
    assert rejected in done.stderr


def test_a_control_character_in_a_column_is_escaped(tmp_path: Path) -> None:
    write_csv(tmp_path / "c.csv", ("a\x1b[31m", ["1", "2", "\x1b[0m"]), draws=True)
    done = run("ingest", "c.csv", "--encoder", "pixels", cwd=tmp_path)
    assert b"columns: a\\x1b[31m text" in done.stdout
    assert b"\x1b" not in done.stdout + done.stderr


def test_python_names_its_own_parameters(tmp_path: Path) -> None:
    write_csv(tmp_path / "c.csv", ("price", ["12,50 €", "9 €", "8 €", "ask"]), draws=True)
    with lookalike.connect(tmp_path / "x.db", encoder="pixels") as shop:
        plan = shop.ingest(tmp_path / "c.csv", dry_run=True)
        assert plan.columns == {"price": "text"}
        [warning] = plan.warnings
        assert warning.endswith(
            "Add strip_currency=True and decimal_comma=True, and treat this text as missing: null_values=['ask']; "
            'or reject the rows: fields={"price": "float"}. If it is text on purpose: fields={"price": "text"}'
        )
        summary = shop.ingest(tmp_path / "c.csv", strip_currency=True, decimal_comma=True, null_values="ask")
        assert (summary.columns, summary.warnings) == ({"price": "float"}, ())
        assert [hit.product_id for hit in shop.search(product="p3", where="price > 12")] == ["p0"]
        with pytest.raises(BadQuery, match="null_values is int"):
            shop.ingest(tmp_path / "c.csv", null_values=5)  # type: ignore[arg-type]


def test_a_column_of_another_type_than_in_other_sources_is_reported(uri: str, tmp_path: Path) -> None:
    name = f"columns_{'lite' if uri.endswith('.db') else 'server'}"
    one, two = write_json_lines(tmp_path / "1.jsonl", [1, 2]), write_json_lines(tmp_path / "2.jsonl", ["red", "blue"])
    for n in range(2):
        draw(tmp_path / f"{n}.png", n)
    with lookalike.connect(uri, encoder="pixels", collection=name) as shop:
        assert shop.ingest(one, source_name="one").warnings == ()
        expected = "x is text in this source, and a number in the rows of other sources: no filter on it finds both"
        for is_dry in (True, False):
            [warning] = shop.ingest(two, source_name="two", dry_run=is_dry).warnings
            assert warning.startswith(expected)
        assert shop.ingest(two, source_name="two").warnings == (), "nothing was stored"
