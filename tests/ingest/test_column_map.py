"""Manifests whose columns have other names: the error says how to read them, and --column does it."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from catalogue import draw
from command import fails, lookalike
from pyarrow import parquet

import lookalike as api
from lookalike.ingest.reports.report import Rejection
from lookalike.ingest.sources.column_map import ColumnMap
from lookalike.ingest.sources.manifest import ManifestSource
from lookalike.ingest.sources.open import open_source
from lookalike.schema.errors import BadSettings, BadSource
from lookalike.schema.product import ProductImage

ROWS = [
    {"sku": "1.50", "photo_url": "photos/1.png", "Title": "Mug", "price": "9.5"},
    {"sku": "007", "photo_url": "photos/2.png", "Title": "Cup", "price": "12"},
]
COLUMNS = {"product_id": "sku", "image": "photo_url", "title": "Title"}


def write_csv(folder: Path) -> Path:
    lines = [",".join(ROWS[0]), *(",".join(row.values()) for row in ROWS)]
    return write(folder / "shop.csv", "\n".join(lines))


def write_tsv(folder: Path) -> Path:
    lines = ["\t".join(ROWS[0]), *("\t".join(row.values()) for row in ROWS)]
    return write(folder / "shop.tsv", "\n".join(lines))


def write_json_lines(folder: Path) -> Path:
    return write(folder / "shop.jsonl", "\n".join(map(json.dumps, ROWS)))


def write_parquet(folder: Path) -> Path:
    parquet.write_table(pa.Table.from_pylist(ROWS), folder / "shop.parquet")
    return folder / "shop.parquet"


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


EVERY_FORMAT = pytest.mark.parametrize("make", [write_csv, write_tsv, write_json_lines, write_parquet])


def read(path: Path, columns: dict[str, str] | None = None) -> list[ProductImage | Rejection]:
    return list(ManifestSource(str(path), {}, columns=ColumnMap(columns or {})).images())


def error_of(path: Path, columns: dict[str, str] | None = None) -> str:
    with pytest.raises((BadSource, BadSettings)) as raised:
        read(path, columns)
    return str(raised.value)


@EVERY_FORMAT
def test_a_manifest_with_other_names_says_how_to_read_it(make: Callable[[Path], Path], tmp_path: Path) -> None:
    path = make(tmp_path)
    assert error_of(path) == (
        f"SOURCE {str(path)!r} has no column product_id and no image; it has sku, photo_url, Title, price. "
        "To read others as these: --column product_id=sku --column image=photo_url"
    )


@EVERY_FORMAT
def test_columns_are_read_under_the_names_that_are_given(make: Callable[[Path], Path], tmp_path: Path) -> None:
    items = read(make(tmp_path), COLUMNS)
    assert all(isinstance(item, ProductImage) for item in items), items
    found = [(i.product_id, i.image, i.metadata["title"]) for i in items if isinstance(i, ProductImage)]
    # An id stays text, whatever it looks like.
    assert found == [("1.50", f"{tmp_path}/photos/1.png", "Mug"), ("007", f"{tmp_path}/photos/2.png", "Cup")]


@pytest.mark.parametrize(
    ("header", "advice"),
    [
        ("Handle,Variant SKU,Image Src", "--column product_id=Handle --column 'image=Image Src'"),
        ("g:id,g:image_link", "--column 'product_id=g:id' --column 'image=g:image_link'"),
        ("Product ID,IMAGE", "--column 'product_id=Product ID' --column image=IMAGE"),
        ("prodcut_id,image", "--column product_id=prodcut_id"),
        ("id,link,image_link", "--column product_id=id --column image=image_link"),
        ("artnr,bild", "--column product_id=COLUMN --column image=COLUMN"),
        ("product_id,Foto,path", "--column image=path"),
    ],
)
def test_the_nearest_columns_are_proposed(header: str, advice: str, tmp_path: Path) -> None:
    assert error_of(write(tmp_path / "shop.csv", f"{header}\n1,2,3\n")).endswith(f"To read others as these: {advice}")


def test_a_wide_table_is_listed_in_part(tmp_path: Path) -> None:
    header = ",".join(f"c{number}" for number in range(100))
    assert "it has c0, c1, " in error_of(write(tmp_path / "shop.csv", header))
    assert "c29 and 70 more. " in error_of(tmp_path / "shop.csv")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"product_id": "skuu"},
            "--column product_id=skuu: SOURCE .* has no column 'skuu'; did you mean 'sku'. It has sku",
        ),
        (
            {"sku": "product_id"},
            r"has no column 'product_id'; did you mean --column product_id=sku \? It has sku, photo",
        ),
        ({"price": "Title"}, "--column price=Title: SOURCE .* has a column price too; .* add --column old_price=price"),
        ({"title": "Zebra"}, r"has no column 'Zebra'\. It has sku, photo_url, Title, price"),
        ({"product_id": "sku", "code": "sku"}, "the column 'sku' is named twice, as product_id and code"),
        ({"source": "sku"}, "--column source=sku: source is a column of the collection already; take another name"),
        ({"product_id": ""}, "write NAME=COLUMN, for example --column product_id=sku"),
        ({"product_id": 7}, "write NAME=COLUMN"),
    ],
)
@EVERY_FORMAT
def test_a_name_that_cannot_be_given_is_refused(
    make: Callable[[Path], Path], columns: dict[str, str], message: str, tmp_path: Path
) -> None:
    with pytest.raises((BadSource, BadSettings), match=message):
        read(make(tmp_path), columns)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["sku"], "--column 'sku': write NAME=COLUMN, for example --column product_id=sku"),
        (["=sku"], "write NAME=COLUMN"),
        (["product_id="], "write NAME=COLUMN"),
        (["image=a", "image=b"], "image is read from two columns, 'a' and 'b'; leave one out"),
    ],
)
def test_a_declaration_that_is_none_is_refused(texts: list[str], message: str) -> None:
    with pytest.raises(BadSettings, match=message):
        ColumnMap.parse(texts)
    assert ColumnMap.parse(["id=a=b"]).columns == {"id": "a=b"}


def test_two_columns_can_change_their_names(tmp_path: Path) -> None:
    path = write(tmp_path / "shop.csv", "product_id,image,sku\ninternal,1.png,public\n")
    [item] = read(path, {"product_id": "sku", "sku": "product_id"})
    assert isinstance(item, ProductImage)
    assert (item.product_id, item.metadata) == ("public", {"sku": "internal"})


def test_json_lines_without_ids_are_one_error_and_single_ones_are_rejected(tmp_path: Path) -> None:
    lines = [json.dumps({"sku": n, "photo": f"{n}.png"}) for n in range(3_000)]
    assert "it has sku, photo. To read others as these:" in error_of(write(tmp_path / "shop.jsonl", "\n".join(lines)))
    lines[40] = json.dumps({"product_id": "a", "image": "1.png"})
    items = read(write(tmp_path / "shop.jsonl", "\n".join(["no json", *lines[30:]])))
    assert [type(item) for item in items].count(ProductImage) == 1
    assert len(items) == 2_971
    done = lookalike("ingest", "-", cwd=tmp_path, stdin=b'{"id": 1, "url": "a.png"}\n' * 3)
    assert done.returncode == 2
    assert b"--column product_id=id --column image=url" in done.stderr


def test_a_line_with_both_names_is_rejected_where_it_is(tmp_path: Path) -> None:
    rows = [
        {"sku": "a", "image": "1.png"},
        {"sku": "b", "image": "2.png", "product_id": "c"},
        {"sku": "d", "image": "3.png"},
    ]
    items = read(write(tmp_path / "shop.jsonl", "\n".join(map(json.dumps, rows))), {"product_id": "sku"})
    assert [item.image if isinstance(item, Rejection) else item.product_id for item in items] == ["a", "line 2", "d"]
    assert isinstance(items[1], Rejection)
    assert items[1].reason == "it has two values for product_id"


def test_the_command_and_python_take_the_same_names(tmp_path: Path) -> None:
    for row in ROWS:
        draw(tmp_path / row["photo_url"], len(row["photo_url"]) + int(float(row["sku"])))
    path = write_csv(tmp_path)
    message = fails(2, "ingest", path, "--encoder", "pixels", cwd=tmp_path)
    assert "--column product_id=sku --column image=photo_url" in message
    options = [part for name, column in COLUMNS.items() for part in ("--column", f"{name}={column}")]
    done = lookalike("ingest", path, "--encoder", "pixels", *options, "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["stored"] == 2
    variable = "|".join(f"{name}={column}" for name, column in COLUMNS.items())
    again = lookalike("ingest", path, "--json", cwd=tmp_path, LOOKALIKE_COLUMN=variable)
    assert json.loads(again.stdout)["unchanged"] == 2
    with api.connect(tmp_path / "lookalike.db") as shop:
        assert shop.ingest(path, columns=COLUMNS, fields={"title": "text"}).unchanged == 2
        assert shop.get("007").metadata == {"title": "Cup", "price": 12.0}
        with pytest.raises(BadSource, match=r'these: columns=\{"product_id": "sku", "image": "photo_url"\}$'):
            shop.ingest(path)
        with pytest.raises(BadSource, match=r'^columns=\{"title": "Titel"\}: SOURCE .* did you mean \'Title\'\?'):
            shop.ingest(path, columns={**COLUMNS, "title": "Titel"})


def test_a_folder_has_no_columns(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match=r"--column is for the columns of a manifest, but SOURCE .* is a folder"):
        open_source(str(tmp_path), None, None, {}, columns=ColumnMap({"a": "b"}))


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("shop.xlsx", "Save the spreadsheet as CSV"),
        ("shop.json", "one line of JSON, in a file of .jsonl"),
        ("shop.txt", "If it is a table in CSV, call it .csv"),
        ("shop.zip", "Unpack it first"),
        ("shop.csv.gz", "Unpack it first"),
        ("front.JPG", "It is an image: name the folder that holds it"),
        ("shop.xml", "SOURCE is a folder of images"),
    ],
)
def test_a_file_that_is_no_manifest_says_which_files_are(name: str, advice: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"x")
    message = fails(2, "ingest", name, cwd=tmp_path)
    assert advice in message
    assert "a file of .csv, .tsv, .jsonl, .ndjson, .parquet; or - for JSON lines on standard input" in message
    with api.connect(tmp_path / "shop.db") as shop, pytest.raises(BadSource, match="is not read as a catalogue"):
        shop.ingest(tmp_path / name)
