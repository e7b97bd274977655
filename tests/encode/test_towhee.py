"""Towhee: our encoders in its pipes, and its operators as our encoders, without its hub."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from catalogue import draw
from command import fails, lookalike_process
from PIL import Image

from lookalike.encode.decode import decode
from lookalike.encode.registry import load_encoder
from lookalike.schema.errors import BadImage
from lookalike.schema.milvus.store import Store

HAS_TOWHEE = importlib.util.find_spec("towhee") is not None
with_towhee = pytest.mark.skipif(not HAS_TOWHEE, reason="Towhee is not installed: make test-towhee")

TINY_CLIP = str(Path(__file__).parents[1] / "tiny_clip")
IMAGES = 1_100

# Strict about its input, and careless about its output.
OPERATOR = """\
import numpy as np

class ColourMeans:
    def __init__(self, power="1"):
        self.power = float(power)

    def __call__(self, image):
        assert image.mode == "RGB"
        if image.shape[:2] == (31, 31):
            raise RuntimeError("no square images of 31")
        means = np.asarray(image).reshape(-1, 3).mean(0) ** self.power + 1
        return {(30, 31): np.stack([means, means]), (31, 30): means[:2]}.get(image.shape[:2], means)

def colour_means(**arguments):
    return ColourMeans(**arguments)
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More images than a pipe takes in one call: a broken one in the middle, and some that the operator fails on."""
    folder = tmp_path_factory.mktemp("towhee") / "photos"
    for n in range(IMAGES):
        draw(folder / f"p{n:04}" / "1.png", n)
    (folder / "p0500" / "1.png").write_bytes(b"not an image")
    for n, size in ((600, (31, 31)), (601, (31, 30)), (602, (30, 31))):
        Image.new("RGB", size, "red").save(folder / f"p{n:04}" / "1.png")
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of operators, for TOWHEE_HOME."""
    home = tmp_path_factory.mktemp("home")
    folder = home / "operators" / "shop" / "colour-means" / "versions" / "main"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(OPERATOR)
    return home


@with_towhee
def test_our_encoders_work_in_a_pipe_without_a_hub(photos: Path) -> None:
    from towhee import ops, pipe
    from towhee.types import Image as TowheeImage

    import lookalike.encode.towhee.operators  # noqa: F401

    encoder = load_encoder("pixels")
    one, image = photos / "p0001" / "1.png", decode((photos / "p0001" / "1.png").read_bytes())
    expected = encoder.encode_images(encoder.prepare(image)[None])[0]
    embed = pipe.input("image").map("image", "vector", ops.lookalike.image_embedding("pixels")).output("vector")
    bgr = TowheeImage(np.asarray(image)[..., ::-1], "BGR")
    for form in (str(one), one.read_bytes(), np.asarray(image), bgr):
        assert np.array_equal(embed(form).get()[0], expected)

    embed_text = pipe.input("text").map("text", "vector", ops.lookalike.text_embedding(TINY_CLIP)).output("vector")
    clip: Any = load_encoder(TINY_CLIP)
    assert np.allclose(embed_text("a red circle").get()[0], clip.encode_texts(["a red circle"])[0], atol=1e-6)
    with pytest.raises(RuntimeError, match="'pixels' has no text tower"):
        ops.lookalike.text_embedding("pixels").get_op()


@with_towhee
def test_a_broken_image_in_a_pipe_affects_no_other(photos: Path) -> None:
    from towhee import ops, pipe

    import lookalike.encode.towhee.operators  # noqa: F401

    embed = (
        pipe.input("id", "path")
        .map("path", "vector", ops.lookalike.image_embedding("pixels", bad="return"))
        .output("id", "vector")
    )
    files = sorted(photos.rglob("*.png"))
    items = [[file.parent.name, str(file)] for file in files]
    calls = [items[start : start + 1_000] for start in range(0, IMAGES, 1_000)]
    results = [result.get() for call in calls for result in embed.batch(call)]

    assert [name for name, _ in results] == [name for name, _ in items]
    assert [name for name, vector in results if isinstance(vector, BadImage)] == ["p0500"]
    encoder = load_encoder("pixels")
    for (_, vector), file in list(zip(results, files, strict=True))[499:505:2]:
        pixels = encoder.prepare(decode(file.read_bytes()))
        assert np.array_equal(vector, encoder.encode_images(pixels[None])[0])


@with_towhee
def test_an_operator_works_as_an_encoder(photos: Path, home: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.jsonl"
    name = ("--encoder", "towhee:shop/colour_means?power=0.5")
    done = lookalike_process("ingest", photos, *name, "--report", report, cwd=tmp_path, TOWHEE_HOME=home)

    assert done.returncode == 0, done.stderr
    assert f"stored {IMAGES - 4}, rejected 4".encode() in done.stdout
    assert b"fails on an image" in done.stderr
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    rejected = {Path(line["image"]).parent.name: line["reason"] for line in lines if line["event"] == "rejected"}
    assert sorted(rejected) == ["p0500", "p0600", "p0601", "p0602"]
    assert "no finite vector" in rejected["p0601"]
    with Store.open(str(tmp_path / "lookalike.db")) as store:
        rows = list(store.rows(fields=["product_id", "image", "embedding"]))
    assert len(rows) == IMAGES - 4
    for row in rows:
        means = np.asarray(decode(Path(row["image"]).read_bytes()), dtype=np.float32).reshape(-1, 3).mean(0) ** 0.5 + 1
        assert np.allclose(row["embedding"], means / np.linalg.norm(means), atol=1e-5), row["product_id"]

    found = lookalike_process("search", photos / "p0042" / "1.png", "--format", "ids", cwd=tmp_path, TOWHEE_HOME=home)
    assert b"p0042" in found.stdout
    other = fails(
        1,
        "ingest",
        photos,
        "--encoder",
        "towhee:shop/colour_means",
        cwd=tmp_path,
        run=lookalike_process,
        TOWHEE_HOME=home,
    )
    assert "is another encoder (weights" in other


@with_towhee
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("towhee:nothing", "towhee:<namespace>/<operator>"),
        ("towhee:shop/missing", "no operator 'shop/missing' is registered, and there is no"),
        ("towhee:shop/colour-means?power=much", "could not convert string to float"),
    ],
)
def test_a_name_that_cannot_be_loaded_is_refused_with_the_reason(
    name: str, message: str, photos: Path, home: Path, tmp_path: Path
) -> None:
    assert message in fails(
        1, "ingest", photos, "--encoder", name, cwd=tmp_path, run=lookalike_process, TOWHEE_HOME=home
    )


@pytest.mark.skipif(HAS_TOWHEE, reason="Towhee is installed: make test")
def test_without_towhee_the_message_says_how_to_install_it(photos: Path, tmp_path: Path) -> None:
    assert "pip install 'lookalike[towhee]'" in fails(1, "ingest", photos, "--encoder", "towhee:a/b", cwd=tmp_path)
