"""Manifests: how rows become images and metadata, and how a bad row is rejected."""

import json
import os
import threading
from collections.abc import Callable, Iterator
from datetime import date
from decimal import Decimal
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest
from conftest import bring
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pyarrow import parquet

from lookalike.encode.registry import load_encoder
from lookalike.ingest.reports.report import Rejection
from lookalike.ingest.sources.files import image_reader
from lookalike.ingest.sources.folder import FolderSource
from lookalike.ingest.sources.layout import FolderRule
from lookalike.ingest.sources.manifest import ManifestSource, is_manifest
from lookalike.ingest.sources.open import open_source
from lookalike.schema.errors import BadImage, BadSettings, BadSource
from lookalike.schema.metadata import guess_type, parse_column_types
from lookalike.schema.milvus.store import Store
from lookalike.schema.product import ProductImage

PIXELS = load_encoder("pixels")


def write_manifest(path: Path, text: str) -> ManifestSource:
    path.write_text(text, encoding="utf-8")
    return ManifestSource(str(path), {})


def list_images(source: ManifestSource) -> list[ProductImage]:
    return [item for item in source.images() if isinstance(item, ProductImage)]


def list_rejections(source: ManifestSource) -> list[tuple[str, str]]:
    return [(item.image, item.reason) for item in source.images() if isinstance(item, Rejection)]


ROWS = [
    {"product_id": "m1", "image": "a/1.jpg", "title": "Mug, red", "price": 9.5, "stock": 3, "sale": True},
    {"product_id": "m1", "image": "a/2.jpg", "title": 'The "best" mug', "price": 10.0, "stock": 0, "sale": False},
]
CSV = """product_id,image,title,price,stock,sale
m1,a/1.jpg,"Mug, red",9.5,3,true
m1,a/2.jpg,"The ""best"" mug",10,0,FALSE
"""


def write_csv(path: Path) -> None:
    path.with_suffix(".csv").write_text(CSV)


def write_excel_csv(path: Path) -> None:
    semicolons = "﻿product_id;image;title;price;stock;sale\r\nm1;a/1.jpg;Mug, red;9.5;3;true\r\n"
    path.with_suffix(".csv").write_text(semicolons + 'm1;a/2.jpg;"The ""best"" mug";10;0;FALSE\r\n')


def write_json_lines(path: Path) -> None:
    path.with_suffix(".jsonl").write_text("\n".join(map(json.dumps, ROWS)) + "\n\n")


def write_parquet(path: Path) -> None:
    parquet.write_table(pa.Table.from_pylist(ROWS), path.with_suffix(".parquet"), row_group_size=1)


@pytest.mark.parametrize("write", [write_csv, write_excel_csv, write_json_lines, write_parquet])
def test_every_manifest_format_gives_the_same_images(tmp_path: Path, write: Callable[[Path], None]) -> None:
    write(tmp_path / "catalogue")
    path = next(tmp_path.iterdir())
    source = ManifestSource(str(path), {})

    items = list_images(source)

    assert [dict(item.metadata) for item in items] == [
        {name: value for name, value in row.items() if name not in ("product_id", "image")} for row in ROWS
    ]
    assert [type(value) for value in items[0].metadata.values()] == [str, float, int, bool]
    assert [(item.product_id, item.image) for item in items] == [("m1", str(tmp_path / f"a/{n}.jpg")) for n in (1, 2)]
    assert source.count() == 2
    assert source.name == str(path)


def test_an_id_that_looks_like_a_number_stays_text(tmp_path: Path) -> None:
    source = write_manifest(
        tmp_path / "c.csv",
        "product_id,image,ean,code,zip,size\n007,1.jpg,12345678901234567890,1e5,01234,42\n8,2.jpg,,2e7,99999,M\n",
    )
    first, second = list_images(source)
    assert first.product_id == "007"
    assert first.metadata == {"ean": "12345678901234567890", "code": "1e5", "zip": "01234", "size": "42"}
    assert second.metadata == {"code": "2e7", "zip": "99999", "size": "M"}


@given(st.integers(-(10**17), 10**17) | st.floats(-1e9, 1e9).map(lambda x: round(x, 3)))
def test_a_guessed_number_round_trips_to_the_same_value(number: float) -> None:
    kind = guess_type(str(number))
    assert kind == "text" or {"int": int, "float": float}[kind](str(number)) == number


def test_declared_types_override_guessed_ones(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text('product_id,image,size,tags,parts\na,1.jpg,42,red|green,"[1, 2]"\nb,2.jpg,43,,\n')
    fields = parse_column_types(["size:text", "tags:list", "parts:list"])
    first, second = list_images(ManifestSource(str(tmp_path / "c.csv"), fields))
    assert first.metadata == {"size": "42", "tags": ["red", "green"], "parts": [1, 2]}
    assert second.metadata == {"size": "43"}

    (tmp_path / "c.jsonl").write_text('{"product_id": 7, "image": "1.jpg", "price": "9.50", "stock": 3}\n')
    [item] = list_images(ManifestSource(str(tmp_path / "c.jsonl"), parse_column_types(["price:float", "stock:float"])))
    assert (item.product_id, item.metadata) == ("7", {"price": 9.5, "stock": 3.0})


@pytest.mark.parametrize("text", ["price", "price:money", ":int", "image_id:text"])
def test_an_invalid_declaration_is_refused(text: str) -> None:
    with pytest.raises(BadSettings, match="--field"):
        parse_column_types([text])


def test_a_row_with_several_images_and_parquet_values(tmp_path: Path) -> None:
    rows = [
        {"product_id": 5.0, "image": ["1.jpg", "2.jpg"], "tags": ["a", None], "since": date(2026, 1, 2)},
        {"product_id": 6.0, "image": ["http://x.org/3.jpg"], "tags": None, "since": None},
    ]
    table = pa.Table.from_pylist(rows).append_column("price", pa.array([Decimal("9.50"), None]))
    parquet.write_table(table, tmp_path / "c.parquet")
    one, two, three = list_images(ManifestSource(str(tmp_path / "c.parquet"), {}))
    assert (one.product_id, three.product_id, three.image) == ("5", "6", "http://x.org/3.jpg")
    assert one.image_id != two.image_id
    assert one.metadata == two.metadata == {"tags": ["a", None], "since": "2026-01-02", "price": 9.5}
    assert three.metadata == {}

    source = write_manifest(tmp_path / "c.csv", 'product_id,image\na,"[""1.jpg"", ""2.jpg""]"\n')
    assert [Path(item.image).name for item in list_images(source)] == ["1.jpg", "2.jpg"]


def test_a_bad_row_is_rejected_with_its_line_number(tmp_path: Path) -> None:
    lines = [
        '{"product_id": "a", "image": "1.jpg"}',
        '{"product_id": "", "image": "1.jpg"}',
        '{"product_id": "b"}',
        '{"product_id": "c", "image": "2.jpg", "price": "cheap"}',
        "no json",
        "[1]",
        '{"product_id": "d", "image": "3.jpg", "source": "mine"}',
        '{"product_id": true, "image": "4.jpg"}',
        '{"product_id": "e", "image": {"url": "5.jpg"}}',
        '{"product_id": "f", "image": ["6.jpg", {"x": 1}]}',
        '{"product_id": "g", "image": "file://[x"}',
        '{"product_id": "h", "image": "7.jpg", "price": ' + 401 * "9" + "}",
        '{"product_id": "i", "image": "8.jpg", "x": ' + 900 * "[" + 900 * "]" + "}",
    ]
    (tmp_path / "c.jsonl").write_text("\n".join(lines))
    source = ManifestSource(str(tmp_path / "c.jsonl"), {"price": "float"})

    assert [item.product_id for item in list_images(source)] == ["a", "f"]
    rejections = list_rejections(source)
    assert [location for location, _ in rejections] == [
        "line 2",
        "line 3",
        "line 4: 2.jpg",
        "line 5",
        "line 6",
        "line 7: 3.jpg",
        "line 8",
        "line 9",
        "line 10",
        "line 11",
        "line 12: 7.jpg",
        "line 13: 8.jpg",
    ]
    reasons = " / ".join(reason for _, reason in rejections)
    for part in ("no product_id", "'b' has no image", "price is 'cheap', not float", "not JSON:", "not a JSON object"):
        assert part in reasons
    incomplete = [item.incomplete for item in source.images() if isinstance(item, Rejection)]
    assert incomplete == [True, False, False, True, True, False, True, True, True, True, False, False]


def test_a_broken_csv_line_does_not_end_the_manifest(tmp_path: Path) -> None:
    long = "x" * 200_000
    lines = [
        "product_id,image,",
        "a,1.jpg,",
        "b,2.jpg,3,4",
        'c,"4"x,',
        "d,5.jpg",
        f'e,{long},"',
        'f,6.jpg"',
        "g,7.jpg,",
    ]
    source = write_manifest(tmp_path / "c.csv", "\n".join(lines))
    assert [item.product_id for item in list_images(source)] == ["a", "e", "g"]
    assert [location for location, _ in list_rejections(source)] == ["line 3", "line 4", "line 5"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.csv", b"sku,photo\n1,2\n", "has no column product_id and no image; it has sku, photo"),
        ("c.csv", b"", "no image; it has none"),
        ("c.csv", b'product_id,"image\na,b\n', "no header that can be read"),
        ("c.csv", b"product_id,image,x,x\n", "two columns of the name x"),
        ("c.csv", b"product_id,image\n\xff,1\n", "is not UTF-8"),
        ("c.parquet", b"no parquet", "cannot be read as Parquet"),
        ("missing.csv", None, "no such file"),
    ],
)
def test_an_unreadable_manifest_is_refused(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(BadSource, match=message):
        list(ManifestSource(str(tmp_path / name), {}).images())


def test_a_folder_with_the_suffix_of_a_manifest_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "photos.csv").mkdir()
    assert not is_manifest(str(tmp_path / "photos.csv"))
    assert is_manifest("-")
    assert not is_manifest("photos")


def test_open_source_chooses_the_class_by_name(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text('{"product_id": "a", "image": "photos/a/1.jpg"}\n')
    (tmp_path / "photos" / "a").mkdir(parents=True)
    Image.new("RGB", (9, 9)).save(tmp_path / "photos" / "a" / "1.jpg")
    for path, layout in (("c.jsonl", None), ("photos", None), ("photos", "{product_id}/{image}")):
        source = open_source(str(tmp_path / path), layout, None, {})
        [item] = source.images()
        assert isinstance(item, ProductImage)
        assert (item.product_id, item.image) == ("a", str(tmp_path / "photos" / "a" / "1.jpg"))
        assert (item.source, source.count()) == (source.name, 1) == (str(tmp_path / path), 1)
        with pytest.raises(BadSettings, match="--source-name: "):
            open_source(str(tmp_path / path), layout, "x" * 70_000, {})
    assert open_source("-", None, None, {}).count() is None, "standard input can be read only once"


def test_a_json_file_beside_an_image_adds_metadata(tmp_path: Path) -> None:
    for name in ("good", "bad", "list", "plain"):
        Image.new("RGB", (9, 9)).save(tmp_path / f"{name}.jpg")
    (tmp_path / "good.json").write_text('{"price": 9.5, "category": "mug"}')
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "list.json").write_text("[]")

    items = list(FolderSource(tmp_path, FolderRule()).images())

    assert [item.metadata for item in items if isinstance(item, ProductImage)] == [
        {"price": 9.5, "category": "mug"},
        {},
    ]
    bad = [item for item in items if isinstance(item, Rejection)]
    assert all("the JSON file beside it" in item.reason and item.image_id for item in bad)
    assert len(bad) == 2


def test_a_date_outside_pythons_range_breaks_only_its_row(tmp_path: Path) -> None:
    days = pa.array([1, 9_000_000], pa.int32()).cast(pa.date32())
    table = pa.table({"product_id": ["a", "b"], "image": ["1.jpg", "2.jpg"], "since": days})
    parquet.write_table(table, tmp_path / "c.parquet")
    source = ManifestSource(str(tmp_path / "c.parquet"), {})
    assert [item.product_id for item in list_images(source)] == ["a"]
    assert [location for location, _ in list_rejections(source)] == ["row 2"]


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder; answers 503 to the first request for an image named `stumble`."""

    requests: list[str]

    def do_GET(self) -> None:
        self.requests.append(f"GET {self.path}")
        if "stumble" in self.path and self.requests.count(f"GET {self.path}") == 1:
            self.send_error(503)
        else:
            super().do_GET()

    def log_message(self, *_arguments: object) -> None:
        """Log nothing."""


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, Path, list[str]]]:
    """A web server on a folder: its address, the folder, and the requests it got."""
    folder = tmp_path / "web"
    folder.mkdir()
    Handler.requests = []
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", folder, Handler.requests
        server.shutdown()


def test_images_over_http_are_retried_rejected_and_recognised(web: tuple[str, Path, list[str]], tmp_path: Path) -> None:
    address, folder, requests = web
    for n, name in enumerate(("good", "stumble")):
        Image.new("RGB", (30, 30), (n * 90, 5, 5)).save(folder / f"{name}.png")
        os.utime(folder / f"{name}.png", (1_700_000_000, 1_700_000_000))
    (folder / "broken.png").write_bytes(b"no image")
    lines = [
        {"product_id": name, "image": f"{address}/{name}.png"} for name in ("good", "stumble", "broken", "missing")
    ]
    lines.append({"product_id": "nowhere", "image": "http://127.0.0.1:9/x.png"})
    lines.append({"product_id": "unknown", "image": "gopherus://x/x.png"})
    source = write_manifest(tmp_path / "c.jsonl", "\n".join(map(json.dumps, lines)))

    with Store.create(str(tmp_path / "w.db"), PIXELS.fingerprint) as store:
        read = image_reader(allow_private=True).read_changed
        first = bring(source.images(), PIXELS, store, read=read).summary()
        first_requests = list(requests)
        again = bring(source.images(), PIXELS, store, read=read).summary()

    assert (first.new, first.rejected) == (2, 4)
    assert (again.stored, again.unchanged, again.rejected) == (0, 2, 4)
    assert first_requests.count("GET /stumble.png") == 2
    assert requests.count("GET /good.png") == 2, "one request per run; the second has no body"


def test_images_that_fsspec_opens() -> None:
    with fsspec.open("memory://shop/1.png", "wb") as file:
        Image.new("RGB", (5, 5)).save(file, "PNG")
    reader = image_reader()
    content, state = reader.read("memory://shop/1.png")
    assert state.size == len(content)
    assert reader.read_changed("memory://shop/1.png", state), "without an mtime the image is read again"
    with pytest.raises(BadImage, match="cannot be read"):
        reader.read("memory://shop/2.png")
