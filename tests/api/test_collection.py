"""The public API does what the command does, on Milvus Lite and on a server, with images in every form."""

import base64
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from catalogue import draw
from command import ROOT, process_environment
from PIL import Image

import lookalike
from lookalike.api.results.result import Result
from lookalike.ingest.run_lock import run_lock
from lookalike.schema.errors import (
    AlreadyRunning,
    BadFilter,
    BadImage,
    BadQuery,
    BadSettings,
    BadSource,
    EncoderMismatch,
    LimitExceeded,
    UnknownProduct,
)

TINY_CLIP = str(ROOT / "tests" / "tiny_clip")
LAYOUT = "{category}/{product_id}/{image}"
MUG = "queries/red-plain-mug.jpg"
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")

NewShop = Callable[..., lookalike.Collection]


@pytest.fixture(scope="module")
def shop(uri: str, catalogue: Path) -> Iterator[lookalike.Collection]:
    """The sample catalogue in a collection. Read it only."""
    with lookalike.connect(uri, collection=f"api{WORKER}", encoder="pixels") as shop:
        summary = shop.ingest(catalogue / "photos", layout=LAYOUT)
        assert (summary.stored, summary.rejected) == (192, 0)
        yield shop


@pytest.fixture
def collection_name(request: pytest.FixtureRequest) -> str:
    """The name of a collection for one test."""
    return f"api{WORKER}_{abs(hash(request.node.nodeid))}"


@pytest.fixture
def new_shop(uri: str, collection_name: str) -> Iterator[NewShop]:
    """Connect to the collection `collection_name`, which does not exist yet, or to the same one again."""
    opened: list[lookalike.Collection] = []

    def connect(encoder: str | None = "pixels", **options: Any) -> lookalike.Collection:
        opened.append(lookalike.connect(uri, collection=collection_name, encoder=encoder, **options))
        return opened[-1]

    yield connect
    for shop in opened:
        shop.close()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Ten products with two images each."""
    for n in range(20):
        draw(tmp_path / "photos" / f"p{n // 2}" / f"{n}.png", 12 * n)
    return tmp_path / "photos"


def ids(result: Result) -> list[str]:
    return [hit.product_id for hit in result]


def test_importing_lookalike_imports_nothing_heavy() -> None:
    code = (
        "import sys, lookalike; assert set(lookalike.__all__) < set(dir(lookalike))\n"
        "print({'torch', 'transformers', 'pymilvus', 'numpy', 'PIL', 'pyarrow', 'click'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=process_environment(), capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


def test_every_public_name_can_be_imported() -> None:
    assert all(hasattr(lookalike, name) for name in lookalike.__all__)
    assert not hasattr(lookalike, "conect")
    assert lookalike.errors.BadQuery is BadQuery


def test_an_image_finds_the_same_hits_in_every_form(
    shop: lookalike.Collection, catalogue: Path, tmp_path: Path
) -> None:
    # A JPEG's file is decoded at a fraction of its size; the pixels of any other format are those of its file.
    file = tmp_path / "mug.png"
    Image.open(catalogue / MUG).save(file)
    content = file.read_bytes()
    image = Image.open(file)
    data_url = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    expected = list(shop.search(file))
    assert len(expected) == 10
    for form in (str(file), content, bytearray(content), memoryview(content), image, np.asarray(image), data_url):
        assert list(shop.search(form)) == expected


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "P", "1", "CMYK", "I;16", "F"])
def test_a_pil_image_of_any_mode_has_the_embedding_of_its_file(mode: str, catalogue: Path) -> None:
    image: Image.Image = Image.open(catalogue / MUG)
    if mode in ("RGBA", "LA"):
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    deep = mode == "I;16"
    image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257) if deep else image.convert(mode)
    file = io.BytesIO()
    image.save(file, "TIFF")
    before = image.copy()
    encoder = lookalike.load_encoder("pixels")
    np.testing.assert_array_equal(encoder.encode(image), encoder.encode(file.getvalue()))
    assert (image.mode, image.size, image.tobytes()) == (before.mode, before.size, before.tobytes())


def test_arrays_have_the_embedding_of_their_file(tmp_path: Path) -> None:
    encoder = lookalike.load_encoder("pixels")
    colours = np.random.default_rng(1).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    for pixels in (colours, colours[:, ::-1], colours[..., 0]):
        Image.fromarray(np.ascontiguousarray(pixels)).save(tmp_path / "array.png")
        np.testing.assert_array_equal(encoder.encode(pixels), encoder.encode(tmp_path / "array.png"))


def test_a_pil_image_is_turned_upright_like_its_file(catalogue: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.open(catalogue / MUG).save(file, "PNG", exif=exif)
    encoder = lookalike.load_encoder("pixels")
    turned = encoder.encode(Image.open(file))
    np.testing.assert_array_equal(turned, encoder.encode(file.getvalue()))
    assert float((turned @ encoder.encode(catalogue / MUG).T)[0, 0]) < 0.99


ACCEPTED = r"it takes a path .* URL, the bytes .* PIL image, or a numpy array of uint8"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"image": 5}, BadQuery, f"the image is int; {ACCEPTED}"),
        ({"image": ["a.jpg"]}, BadImage, "'a.jpg' cannot be used: .*No such file"),
        ({"image": [["a.jpg"]]}, BadQuery, f"the image is list; {ACCEPTED}"),
        ({"image": []}, BadQuery, "image is an empty list"),
        ({"image": [np.zeros((9, 9), np.uint8), b"text"]}, BadImage, "image 2 of 2: not an image"),
        ({"image": str(ROOT / "README.md")}, BadImage, "README.md': not an image"),
        ({"image": io.BytesIO()}, BadQuery, f"the image is _io.BytesIO; {ACCEPTED}"),
        ({"image": np.zeros((2, 2, 3))}, BadQuery, rf"a numpy array of float64 and shape \(2, 2, 3\); {ACCEPTED}"),
        ({"image": np.zeros((2, 2, 4), np.uint8)}, BadQuery, rf"uint8 and shape \(2, 2, 4\); {ACCEPTED}"),
        ({"image": Image.new("RGB", (0, 3))}, BadImage, "the image is 0×3; it needs 1 to"),
        ({"image": np.zeros((0, 3), np.uint8)}, BadImage, "the image is 3×0; it needs 1 to"),
        ({"image": "no/such.jpg"}, BadImage, "'no/such.jpg' cannot be used: .*No such file"),
        ({"image": "nul\0.jpg"}, BadImage, "cannot be used"),
        ({"image": ROOT}, BadImage, "cannot be used"),
        ({"image": b""}, BadImage, "the file is empty"),
        ({"image": b"text"}, BadImage, r"not an image that can be read \(JPEG"),
        ({"image": "data:image/png"}, BadImage, "no comma"),
        ({"image": "data:image/png;base64,!!"}, BadImage, "not Base64"),
        ({"image": "http://127.0.0.1:9/x.jpg"}, BadImage, "could not be fetched: .*allow_private_urls=True"),
        ({"text": 5}, BadQuery, "text is int; it takes str"),
        ({"text": "red"}, BadQuery, "encodes images but no text"),
        ({"product": 5}, BadQuery, "product is int; it takes str"),
        ({"product": "none"}, UnknownProduct, "no product 'none'"),
        ({"like": 5}, BadQuery, r"like is int; it takes a product id \(str\), a dict .*, or a list of these"),
        ({"like": [b"x"]}, BadQuery, "a part of like is bytes; .*write an image as {'image': …}"),
        ({"like": {"imag": "x"}}, BadQuery, "the key 'imag'; a part takes image, text"),
        ({"like": {"text": 5}}, BadQuery, "text of like is int"),
        ({"like": {"vector": "x"}}, BadQuery, "a vector is str; it takes a sequence of numbers"),
        ({"like": {"vector": [[1.0]]}}, BadQuery, r"shape \(1, 1\); it takes one of shape \(dim,\)"),
        ({"like": {"vector": [1.0]}}, BadQuery, "the vector has 1 numbers; this collection's have 768"),
        ({"like": {"product_id": "x", "weight": "1"}}, BadQuery, "weight of like is str; it takes float or int"),
        ({}, BadQuery, "the query is empty"),
        ({"product": "red-plain-mug", "where": 5}, BadFilter, "where is int; it takes text, a dict, or a list"),
        ({"product": "red-plain-mug", "where": [5]}, BadFilter, "in the list where is int; it takes text or a dict"),
        ({"product": "red-plain-mug", "where": {"price": None}}, BadFilter, "cannot be compared with None"),
        ({"product": "red-plain-mug", "limit": "5"}, BadQuery, "limit is str; it takes int"),
        ({"product": "red-plain-mug", "limit": 0}, BadQuery, "limit 0 is not between"),
        ({"product": "red-plain-mug", "offset": 1.5}, BadQuery, "offset is float; it takes int"),
        ({"product": "red-plain-mug", "within": "1"}, BadQuery, "within is str; it takes float or int"),
        ({"product": "red-plain-mug", "fields": 5}, BadQuery, "fields is int; it takes str or a sequence of str"),
    ],
)
def test_an_invalid_argument_is_named_in_the_error(
    shop: lookalike.Collection, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        shop.search(**arguments)


def test_a_filter_is_text_or_json(shop: lookalike.Collection) -> None:
    forms: list[Any] = [
        "category in mug, bag",
        {"category": {"in": ["mug", "bag"]}},
        {"category": {"in": ("mug", np.str_("bag"))}},
        ["category in mug, bag, lamp", {"not": {"category": "lamp"}}],
    ]
    [expected, *others] = [ids(shop.search(product="red-plain-mug", where=where)) for where in forms]
    assert len(expected) == 10
    assert all(name.endswith(("-mug", "-bag")) for name in expected)
    assert others == [expected] * 3


def test_a_query_mixes_its_parts(shop: lookalike.Collection, catalogue: Path) -> None:
    mug = catalogue / MUG
    vector = lookalike.load_encoder("pixels").encode(mug)[0]
    assert ids(shop.search(like={"vector": vector})) == ids(shop.search(like={"image": mug})) == ids(shop.search(mug))
    assert "blue-checked-shirt" not in ids(shop.search(like=["blue-checked-shirt", {"image": mug, "weight": 0.5}]))
    assert ids(shop.search(mug, unlike="red-dotted-shirt")) != ids(shop.search(mug))


def test_several_images_make_one_query(shop: lookalike.Collection, catalogue: Path) -> None:
    mug, lamp = catalogue / MUG, catalogue / "queries" / "teal-plain-lamp.jpg"
    both = list(shop.search([mug, lamp], limit=5))
    assert both == list(shop.search((str(mug), lamp.read_bytes()), limit=5)) != list(shop.search(mug, limit=5))
    assert both == list(shop.search(like=[{"image": mug}, {"image": lamp}], limit=5))


def test_pages_continue_each_other(shop: lookalike.Collection) -> None:
    first, whole = shop.search(product="red-plain-mug", limit=5), shop.search(product="red-plain-mug", limit=10)
    assert first.next_offset == 5
    second = shop.search(product="red-plain-mug", limit=np.int64(5), offset=first.next_offset)  # type: ignore[arg-type]
    assert ids(first) + ids(second) == ids(whole)


def test_several_threads_can_search_one_collection(shop: lookalike.Collection, catalogue: Path) -> None:
    queries = sorted((catalogue / "queries").iterdir()) * 4
    with ThreadPoolExecutor(8) as pool:
        found = [list(result) for result in pool.map(shop.search, queries)]
    assert found == [list(shop.search(query)) for query in queries]


def test_get_and_info_describe_a_product_and_the_collection(shop: lookalike.Collection, uri: str) -> None:
    product = shop.get("red-plain-mug")
    assert product.metadata == {"category": "mug"}
    assert sorted(Path(image.image).name for image in product.images) == ["1.jpg", "2.jpg", "3.jpg"]
    info = shop.info()
    assert (info.uri, info.encoder, info.dim, info.images, info.products) == (uri, "pixels", 768, 192, 64)
    assert info.columns == {"category": {"text": 192}}
    with pytest.raises(UnknownProduct, match="no product 'x'"):
        shop.get("x")


def test_ingest_follows_the_catalogue(new_shop: NewShop, photos: Path, tmp_path: Path) -> None:
    shop, progress = new_shop(), list[int]()
    with pytest.raises(BadSettings, match="no collection"):
        shop.search(product="p1")
    assert shop.ingest(photos, dry_run=True).new == 20
    (photos / "p9" / "broken.png").write_bytes(b"no image")
    summary = shop.ingest(photos, report=tmp_path / "report.jsonl", on_progress=progress.append)
    assert (summary.stored, summary.rejected) == (20, 1)
    assert progress[-1] == 21
    lines = [json.loads(line) for line in (tmp_path / "report.jsonl").read_text().splitlines()]
    assert [line["image"] for line in lines if line["event"] == "rejected"] == [str(photos / "p9" / "broken.png")]
    assert len(shop.search(product="p1", limit=20)) == 9
    for n in range(6):
        (photos / f"p{n // 2}" / f"{n}.png").unlink()
    with pytest.raises(LimitExceeded, match=r"^prune would remove 6 of the 20 rows.* more than max_removals 20%"):
        shop.ingest(photos, prune=True)
    assert shop.ingest(photos, prune=True, max_removals=6).removed == 6
    assert shop.info().images == 14
    assert len(shop.search(product="p9", limit=20)) == 6


def test_ingest_takes_field_types_and_a_source_name(new_shop: NewShop, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "shop.csv").write_text("product_id,image,price\na,photos/p0/0.png,5\nb,photos/p1/2.png,7\n")
    shop = new_shop()
    shop.ingest(tmp_path / "shop.csv", source_name="csv", fields={"price": "float"})
    assert shop.info().sources == {"csv": 2}
    assert ids(shop.search(product="a", where="price > 6")) == ["b"]


def test_an_impossible_run_is_refused(
    new_shop: NewShop, collection_name: str, uri: str, photos: Path, tmp_path: Path
) -> None:
    shop = new_shop()
    (tmp_path / "empty").mkdir()
    for source, message in ((tmp_path / "empty", "holds no images"), (tmp_path / "none", "cannot be read")):
        with pytest.raises(BadSource, match=message):
            shop.ingest(source)
    with pytest.raises(BadQuery, match="source is int; it takes str or Path"):
        shop.ingest(5)  # type: ignore[arg-type]
    with run_lock(uri, collection_name, str(photos)), pytest.raises(AlreadyRunning, match="another run"):
        shop.ingest(photos)
    shop.ingest(photos)
    with pytest.raises(EncoderMismatch, match="pixels"):
        new_shop(TINY_CLIP).search(photos / "p0" / "0.png")


def test_delete_takes_ids_and_a_filter(new_shop: NewShop, photos: Path) -> None:
    shop = new_shop()
    shop.ingest(photos, layout="{product_id}/{image}")
    assert shop.delete("p1") == lookalike.DeleteResult(images=2, products=1)
    with pytest.raises(UnknownProduct, match=r"no product 'none' in .*; nothing was deleted"):
        shop.delete(["p2", "none"])
    assert shop.delete(["p2", "p3"]).products == 2
    assert shop.delete(where="product_id = p4") == lookalike.DeleteResult(images=2, products=1)
    assert shop.delete(where="product_id = none") == lookalike.DeleteResult(images=0, products=0)
    assert shop.delete("p5", dry_run=True).products == 1
    assert sorted(ids(shop.search(product="p0", limit=20))) == ["p5", "p6", "p7", "p8", "p9"]
    with pytest.raises(BadSettings, match="nothing to delete: pass product ids, or a filter as where"):
        shop.delete()
    for no_flag in ("no", None, 0):
        with pytest.raises(BadQuery, match=r"dry_run is .*; it takes bool"):
            shop.delete("p6", dry_run=no_flag)  # type: ignore[arg-type]
        with pytest.raises(BadQuery, match=r"prune is .*; it takes bool"):
            shop.ingest(photos, prune=no_flag)  # type: ignore[arg-type]
    assert shop.get("p6").product_id == "p6"


def test_reindex_moves_to_an_encoder_with_text_while_others_search(
    new_shop: NewShop, photos: Path, tmp_path: Path
) -> None:
    shop, other = new_shop(), new_shop(None)
    shop.ingest(photos)
    assert len(other.search(product="p1", limit=20)) == 9
    plan = shop.reindex(TINY_CLIP, dry_run=True)
    assert (plan.stored, plan.rejected, shop.info().encoder) == (20, 0, "pixels")
    result = shop.reindex(TINY_CLIP)
    assert result.before == plan.before != result.after
    assert result.after.startswith(plan.after)
    assert (result.stored, result.rejected) == (20, 0)
    assert shop.info().encoder == TINY_CLIP
    assert len(shop.search(text="red", limit=20)) == 10
    time.sleep(1.5)  # once a second a search checks which version is live
    assert len(other.search(photos / "p0" / "0.png", text="red", limit=20)) == 10
    assert shop.reindex(TINY_CLIP).before == result.after
    assert shop.export(tmp_path / "shop.parquet") == 20


def test_a_closed_collection_refuses_every_call(new_shop: NewShop, photos: Path) -> None:
    with new_shop() as shop:
        shop.ingest(photos)
    shop.close()
    assert repr(shop).startswith("Collection('api")
    for call in (lambda: shop.search(product="p1"), lambda: shop.ingest(photos), shop.info):
        with pytest.raises(BadQuery, match=r"is closed; call lookalike\.connect again"):
            call()


@pytest.mark.parametrize("uri", ["shop", "shop.sqlite", "no/such/folder/shop.db"])
def test_an_invalid_uri_is_refused_at_once(uri: str) -> None:
    with pytest.raises(BadSettings, match=f"^uri '{uri}' "):
        lookalike.connect(uri)
