"""Results draw themselves and become tables; encoders need no collection; the examples of the documentation run."""

import contextlib
import doctest
import io
import re
import shutil
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from command import ROOT
from PIL import Image

import lookalike
from lookalike.api import collection, connect
from lookalike.api import encoder as encoding
from lookalike.api.inputs.images import ImageLoader
from lookalike.api.results import result
from lookalike.api.results.result import Result
from lookalike.schema.errors import BadImage, BadQuery, BadSettings
from lookalike.schema.product import Hit, HitImage

TINY_CLIP = str(ROOT / "tests" / "tiny_clip")
README = ROOT / "README.md"
PAGE = ROOT / "docs" / "python.md"


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.new("RGB", (400, 200), "red").save(tmp_path / "red.png")
    return tmp_path / "red.png"


def a_hit(product_id: str, image: object, **metadata: Any) -> Hit:
    return Hit(product_id, 0.5, "f" * 32, str(image), metadata)


def result_of(*hits: Hit) -> Result:
    return Result(hits, 1.25, None, ImageLoader().load)


def test_a_result_is_a_sequence(photo: Path) -> None:
    hits = [a_hit(f"p{n}", photo) for n in range(5)]
    result = result_of(*hits)
    assert (len(result), result[1], result[-1], list(result[1:3])) == (5, hits[1], hits[4], hits[1:3])
    assert isinstance(result[1:3], Result)
    assert hits[2] in result
    assert repr(result) == "<Result of 5 hits in 1.2 ms: p0 0.500, p1 0.500, p2 0.500, …>"
    assert repr(result_of()) == "<Result of 0 hits in 1.2 ms: >"


def test_a_result_draws_images_and_scores(photo: Path) -> None:
    drawn = result_of(a_hit("p", photo, category="mug"))._repr_html_()
    assert "0.500" in drawn
    assert "category: mug" in drawn
    [content] = re.findall(r'src="(data:image/jpeg;base64,[^"]+)"', drawn)
    assert max(Image.open(io.BytesIO(ImageLoader().load(content))).size) == 160


def test_all_texts_of_a_hit_are_escaped(photo: Path) -> None:
    evil = '"><script>alert(1)</script>$image'
    drawn = result_of(
        a_hit(evil, photo, **{evil: evil}), a_hit("q", f"/none/{evil}", number=1, many=[evil])
    )._repr_html_()
    assert "<script" not in drawn
    assert "&lt;script&gt;" in drawn


def test_an_unreadable_image_is_replaced_by_the_reason(photo: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(photo.read_bytes()[:60])
    drawn = result_of(
        a_hit("p", tmp_path / "none.png"), a_hit("q", tmp_path / "broken.png"), a_hit("r", photo)
    )._repr_html_()
    assert drawn.count("no image: ") == 2
    assert "No such file or directory" in drawn
    assert drawn.count("data:image/jpeg") == 1


def test_at_most_fifty_hits_are_drawn(photo: Path) -> None:
    drawn = result_of(*[a_hit(f"p{n}", photo) for n in range(60)])._repr_html_()
    assert drawn.count("data:image/jpeg") == 50
    assert "60 hits in 1.2 ms; 10 more are not drawn" in drawn


def test_a_table_has_a_column_for_each_field() -> None:
    images = (HitImage("f" * 32, 0.5, "a.png"), HitImage("e" * 32, 0.4, "b.png"))
    first = Hit("p", 0.5, "f" * 32, "a.png", {"price": 5, "size": 42, "score": "high"}, images)
    result = result_of(first, Hit("q", 0.4, "d" * 32, "c.png", {"price": 5.5, "size": "M", "tags": ["new"]}))
    columns = ["product_id", "score", "image_id", "image", "images", "price", "size", "metadata.score", "tags"]
    table = result.to_arrow()
    assert table.column_names == list(result.to_pandas()) == columns
    assert table["price"].to_pylist() == [5.0, 5.5]
    assert table["size"].to_pylist() == ["42", '"M"']
    assert table["tags"].to_pylist() == [None, ["new"]]
    assert [image["image"] for image in table["images"][0].as_py()] == ["a.png", "b.png"]
    assert list(result.to_pandas()["size"]) == [42, "M"]


def test_an_empty_table_has_typed_columns() -> None:
    table = result_of().to_arrow()
    assert table.num_rows == 0
    assert table.schema.types == [pa.string(), pa.float64(), pa.string(), pa.string()]
    assert list(result_of().to_pandas()) == ["product_id", "score", "image_id", "image"]


def test_to_pandas_without_pandas_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(BadSettings, match="pip install pandas"):
        result_of().to_pandas()


def test_an_encoder_takes_one_image_or_many(photo: Path) -> None:
    encoder = lookalike.load_encoder("pixels")
    one = encoder.encode(photo)
    assert one.shape == (1, 768)
    assert one.dtype == np.float32
    assert repr(encoder) == "LoadedEncoder('pixels', dim=768)"
    batch = np.random.default_rng(2).integers(0, 256, (40, 20, 20, 3), dtype=np.uint8)
    vectors = encoder.encode(batch)
    assert vectors.shape == (40, 768)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(vectors, encoder.encode(Image.fromarray(pixels) for pixels in batch))
    assert encoder.encode([]).shape == (0, 768)
    assert encoder.encode([photo, str(photo), photo.read_bytes()]).shape == (3, 768)


def test_a_generator_of_images_is_read_batch_by_batch(photo: Path) -> None:
    read = 0

    def images() -> Iterator[Path]:
        nonlocal read
        for _ in range(1_000):
            read += 1
            yield photo
        raise AssertionError("read to its end")

    with pytest.raises(BadImage, match=r"image 20: the image 'none\.png'"):
        lookalike.load_encoder("pixels").encode(photo if n != 20 else "none.png" for n, photo in enumerate(images()))
    assert read == 32


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (5, "the argument images is int; it takes a path .* or an iterable of these"),
        ([5], "image 0: the image is int; it takes a path"),
        (np.zeros((3, 3), np.float32), "the image is a numpy array of float32"),
        (np.zeros((2, 3, 3, 4), np.uint8), r"image 0: the image is a numpy array of uint8 and shape \(3, 3, 4\)"),
    ],
)
def test_an_argument_that_is_not_an_image_is_named_in_the_error(images: Any, message: str) -> None:
    with pytest.raises(BadQuery, match=message):
        lookalike.load_encoder("pixels").encode(images)


def test_texts_are_encoded_by_encode_texts(photo: Path) -> None:
    clip = lookalike.load_encoder(TINY_CLIP, engine="torch")
    assert clip.has_text
    words = clip.encode_texts(["red", "blue"] * 10)
    assert words.shape == (20, clip.dim)
    np.testing.assert_allclose(np.linalg.norm(words, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(clip.encode_texts("red"), words[:1], atol=1e-5)
    assert clip.encode_texts([]).shape == (0, clip.dim)
    with pytest.raises(BadImage, match=r"'red' cannot be used.*; for a text, call encode_texts$"):
        clip.encode("red")
    with pytest.raises(
        BadImage, match=r"; for a text, call encode_texts of an encoder with a text tower, such as 'clip'$"
    ):
        lookalike.load_encoder("pixels").encode("a red mug")
    with pytest.raises(BadQuery, match="text 1 is int; it takes str"):
        clip.encode_texts(["red", 5])  # type: ignore[list-item]
    with pytest.raises(BadQuery, match="'pixels' has no text tower; 'clip' has one"):
        lookalike.load_encoder("pixels").encode_texts("red")


class Quiet(SimpleHTTPRequestHandler):
    """Serves files, and logs nothing."""

    def log_message(self, *_: object, **__: object) -> None:
        pass


@pytest.fixture
def site(photo: Path) -> Iterator[str]:
    """A web server on this machine that serves the photo."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(photo.parent))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_private_url_is_fetched_only_where_allowed(site: str, photo: Path) -> None:
    allowed = lookalike.load_encoder("pixels", allow_private_urls=True)
    np.testing.assert_array_equal(allowed.encode(f"{site}/red.png"), allowed.encode(photo))
    with pytest.raises(BadImage, match="could not be fetched: the server answered 404"):
        allowed.encode(f"{site}/none.png")
    with pytest.raises(BadImage, match=r"does not lead to a public address; .*allow_private_urls=True"):
        lookalike.load_encoder("pixels").encode(f"{site}/red.png")


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, catalogue: Path) -> Path:
    """A folder with the sample catalogue, and a collection with it, to copy."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "shop").symlink_to(catalogue)
    with contextlib.chdir(folder), lookalike.connect("./filled.db", encoder="pixels") as shop:
        shop.ingest("shop/photos", layout="{category}/{product_id}/{image}")
    return folder


EXAMPLES = {
    example.name: example
    for module in (collection, connect, encoding, result)
    for example in doctest.DocTestFinder(exclude_empty=True).find(module)
    if example.examples
}


def test_every_public_method_has_an_example() -> None:
    documented = {name.removeprefix("lookalike.api.") for name in EXAMPLES}
    methods = ("ingest", "search", "get", "delete", "info", "reindex", "export", "close")
    assert documented >= {f"collection.Collection.{name}" for name in methods} | {
        "connect.connect",
        "encoder.LoadedEncoder",
        "encoder.LoadedEncoder.encode",
        "encoder.LoadedEncoder.encode_texts",
        "encoder.load_encoder",
        "results.result.Result",
        "results.result.Result.to_arrow",
        "results.result.Result.to_pandas",
    }


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name.endswith("reindex") else []) for name in EXAMPLES]
)
def test_the_examples_of_docstrings_run(filled: Path, name: str) -> None:
    shutil.rmtree(filled / "lookalike.db", ignore_errors=True)
    shutil.copytree(filled / "filled.db", filled / "lookalike.db")
    with contextlib.chdir(filled), lookalike.connect("./lookalike.db") as shop:
        test = EXAMPLES[name]
        test.globs = {"lookalike": lookalike, "shop": shop}
        output: list[str] = []
        failed, _ = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=output.append)
    assert not failed, "".join(output)


@pytest.mark.slow
def test_the_examples_of_the_page_run_in_order(
    tmp_path: Path, catalogue: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "shop").symlink_to(catalogue)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) > 8
    namespace: dict[str, Any] = {}
    with contextlib.chdir(tmp_path):
        for block in blocks:
            # There may be no model hub here: the tests' own CLIP stands in for OpenAI's.
            exec(block.replace('"clip"', repr(TINY_CLIP)), namespace)
    printed = capsys.readouterr().out
    assert printed.startswith("192 0\n0 rows would be removed\nred-plain-mug 0.")
    assert "no product 'no-such-product'" in printed
