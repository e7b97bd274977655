"""From folders to rows: what is stored, what is rejected, and that a run can be repeated."""

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import numpy as np
import pytest
from conftest import NewStore, bring
from PIL import Image

from lookalike.encode.engine import Engine, LazyEngine
from lookalike.encode.models.pixels import PixelEncoder
from lookalike.encode.pixel_budget import PixelBudget
from lookalike.encode.preprocess import Pixels
from lookalike.encode.registry import load_encoder
from lookalike.ingest.job import ingest_images
from lookalike.ingest.pipeline.concurrency import in_background, in_parallel
from lookalike.ingest.pipeline.existing_rows import RowScope
from lookalike.ingest.pipeline.limits import PipelineLimits
from lookalike.ingest.pipeline.stages import PipelineContext
from lookalike.ingest.reports.report import Rejection, Report
from lookalike.ingest.sources.folder import FolderSource
from lookalike.ingest.sources.layout import FolderRule, Layout
from lookalike.schema.cancellation import CancelToken, RunCancelled
from lookalike.schema.errors import BadSettings, BadSource
from lookalike.schema.milvus.store import Store
from lookalike.schema.product import ProductImage, Vectors

PIXELS = load_encoder("pixels")
LAYOUT = Layout("{category}/{product_id}/{image}")


def image(path: Path, colour: tuple[int, int, int] = (200, 30, 40)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30), colour).save(path)
    return path


def run(folder: FolderSource, store: Store, report: Report | None = None) -> Report:
    return bring(folder.images(), PIXELS, store, report)


def rows(store: Store) -> dict[str, tuple[object, ...]]:
    fields = ("product_id", "image", "source", "image_hash", "metadata_hash", "image_size", "image_mtime", "metadata")
    stored = store.rows(fields=[*fields, "embedding"])
    return {row["image_id"]: (*(row[name] for name in fields), tuple(row["embedding"])) for row in stored}


def test_ingesting_twice_changes_nothing(new_store: NewStore, catalogue: Path) -> None:
    store, source = new_store(PIXELS.fingerprint), FolderSource(catalogue / "photos", LAYOUT)

    first = run(source, store)
    once = rows(store)
    run(source, store)

    assert (first.stored, first.rejected) == (192, 0)
    assert rows(store) == once
    assert len(once) == 192


def test_the_order_of_the_images_does_not_matter(new_store: NewStore, catalogue: Path) -> None:
    source = FolderSource(catalogue / "photos", LAYOUT)
    shuffled = list(source.images())
    Random(0).shuffle(shuffled)
    one, other = new_store(PIXELS.fingerprint), new_store(PIXELS.fingerprint)

    run(source, one)
    bring(shuffled, PIXELS, other, batch_size=5)

    assert rows(one) == rows(other)


def test_a_row_has_the_path_stamp_and_metadata_of_its_image(new_store: NewStore, tmp_path: Path) -> None:
    path = image(tmp_path / "mug" / "m1" / "front.png")
    os.utime(path, ns=(1, 1_700_000_000_123_456_789))
    store = new_store(PIXELS.fingerprint)
    run(FolderSource(tmp_path, LAYOUT, "shop"), store)

    row = next(store.rows(fields=["product_id", "image", "source", "image_size", "image_mtime", "metadata"]))

    assert row["product_id"] == "m1"
    assert row["image"] == str(path)
    assert row["source"] == "shop"
    assert (row["image_size"], row["image_mtime"]) == (path.stat().st_size, 1_700_000_000_123_456_789)
    assert row["metadata"] == {"category": "mug"}


@pytest.fixture
def messy(tmp_path: Path) -> Path:
    """A folder with hidden, broken, linked and unreadable files; the good images are named good."""
    image(tmp_path / "a" / "good.jpg")
    image(tmp_path / "a" / "good UPPER.JPG")
    image(tmp_path / "a" / "good 'quoted\" \\ name\n.png")
    for junk in (".hidden.jpg", "Thumbs.db", ".DS_Store", "notes.txt"):
        (tmp_path / "a" / junk).write_bytes(b"junk")
    image(tmp_path / ".git" / "hidden.jpg")
    image(tmp_path / "__MACOSX" / "junk.jpg")
    (tmp_path / "a" / "empty.jpg").touch()
    (tmp_path / "a" / "text.jpg").write_text("no image")
    (tmp_path / "a" / "truncated.jpg").write_bytes((tmp_path / "a" / "good.jpg").read_bytes()[:200])
    (tmp_path / "a" / "phone.heic").write_bytes(b"ftypheic")
    (tmp_path / "a" / "nowhere.jpg").symlink_to("missing.jpg")
    (tmp_path / "a" / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "a" / "back").symlink_to(tmp_path, target_is_directory=True)
    os.mkfifo(tmp_path / "a" / "pipe.jpg")
    image(tmp_path / os.fsdecode(b"b\xff") / "not utf8.jpg")
    return tmp_path


def test_each_bad_image_is_one_line_of_the_report_and_the_run_goes_on(
    new_store: NewStore, messy: Path, tmp_path: Path
) -> None:
    store, lines = new_store(PIXELS.fingerprint), tmp_path / "report.jsonl"
    source = FolderSource(messy, FolderRule())

    with Report(lines) as report:
        run(source, store, report)

    events = [json.loads(line) for line in lines.read_text().splitlines()]
    rejected = {Path(line["image"]).name: line["reason"] for line in events if line["event"] == "rejected"}
    assert {Path(str(row["image"])).name[:4] for row in store.rows(fields=["image"])} == {"good"}
    assert report.stored == 3
    assert report.rejected == len(rejected) == source.count() - 3 == 9
    expected = {
        "empty.jpg": "empty",
        "text.jpg": "not an image",
        "truncated.jpg": "",
        "phone.heic": "save it as JPEG or PNG",
        "nowhere.jpg": "No such file",
        "loop.jpg": "symbolic links",
        "back": "read already",
        "pipe.jpg": "not a regular file",
        "not utf8.jpg": "not valid UTF-8",
    }
    assert set(rejected) == set(expected)
    for name, reason in expected.items():
        assert reason in rejected[name]


def test_links_to_folders_elsewhere_are_followed(tmp_path: Path) -> None:
    image(tmp_path / "elsewhere" / "x.jpg")
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)

    items = list(FolderSource(tmp_path / "shop", FolderRule()).images())

    assert [item.image for item in items if isinstance(item, ProductImage)] == [
        str(tmp_path / "shop" / "linked" / "x.jpg")
    ]


def test_a_link_beside_a_folder_does_not_take_its_place(tmp_path: Path) -> None:
    image(tmp_path / "mug" / "x.jpg")
    (tmp_path / "aa").symlink_to("mug")
    (tmp_path / "zz").symlink_to("mug")
    images = [item for item in FolderSource(tmp_path, FolderRule()).images() if isinstance(item, ProductImage)]
    assert [item.product_id for item in images] == ["aa", "mug"]


def test_a_folder_that_vanishes_during_the_walk_is_one_line(tmp_path: Path) -> None:
    for name in "abc":
        image(tmp_path / name / "x.jpg")
    walk = FolderSource(tmp_path, FolderRule()).images()
    next(walk)
    shutil.rmtree(tmp_path / "b")
    rejected, last = list(walk)
    assert isinstance(rejected, Rejection)
    assert rejected.incomplete
    assert isinstance(last, ProductImage)


def test_links_that_branch_at_each_level_are_followed_once(tmp_path: Path) -> None:
    for n in range(30):
        (tmp_path / str(n)).mkdir()
        for name in ("one", "two"):
            (tmp_path / str(n) / name).symlink_to(tmp_path / str(n + 1), target_is_directory=True)
    image(tmp_path / "30" / "x.jpg")

    items = list(FolderSource(tmp_path / "0", FolderRule()).images())

    assert sum(isinstance(item, ProductImage) for item in items) == 1
    assert sum(isinstance(item, Rejection) for item in items) == 30


def test_folders_may_be_600_levels_deep(tmp_path: Path) -> None:
    deep = str(tmp_path)
    for _ in range(600):  # deep enough for two calls a level, not for shutil, which tidies up with one
        deep += "/d"
        os.mkdir(deep)  # noqa: PTH102  pathlib is recursive too
    image(tmp_path / "x.jpg").rename(f"{deep}/x.jpg")

    assert FolderSource(tmp_path, FolderRule()).count() == 1


def test_images_decoded_at_once_have_at_most_the_pixels_of_the_budget() -> None:
    budget, together = PixelBudget(100), []

    def decode(pixels: int) -> None:
        with budget.reserve(pixels):
            together.append(pixels)
            time.sleep(0.002)
            assert sum(together) <= 100 or len(together) == 1
            together.remove(pixels)

    list(in_parallel(decode, [60, 50, 30, 500, 10, 90] * 5, workers=8, ahead=30))
    assert not together


@pytest.mark.parametrize("folder", ["nothing", "file.jpg", "x" * 300])
def test_a_source_that_is_no_folder_is_refused(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file.jpg").touch()
    with pytest.raises(BadSource, match=folder):
        FolderSource(tmp_path / folder, FolderRule())


@pytest.mark.parametrize(
    ("template", "path", "product_id", "metadata"),
    [
        ("{category}/{product_id}/{image}", "mug/m1/1.jpg", "m1", {"category": "mug"}),
        ("{product_id}.jpg", "m1.jpg", "m1", {}),
        ("{product_id}_{view}.{_}", "m_1_front.jpg", "m", {"view": "1_front"}),
        ("{price:float}/{n:int}/{product_id}/{_}", "9.50/3/m1/x.jpg", "m1", {"price": 9.5, "n": 3}),
        ("shop/{product_id}/{image}", "shop/a.b (c)/1.jpg", "a.b (c)", {}),
    ],
)
def test_a_layout_reads_product_and_metadata_from_the_path(
    template: str, path: str, product_id: str, metadata: dict[str, object]
) -> None:
    place = Layout(template).read_path(path)
    assert (place.product_id, place.metadata) == (product_id, metadata)


def test_a_path_that_does_not_fit_its_layout_says_so() -> None:
    with pytest.raises(ValueError, match=r"does not fit the layout \{category\}"):
        LAYOUT.read_path("m1/1.jpg")
    for price in ("cheap", "nan", "inf", "1_000"):
        with pytest.raises(ValueError, match=f"price is '{price}', not float"):
            Layout("{price:float}/{product_id}").read_path(f"{price}/m1.jpg")
    with pytest.raises(ValueError, match=r"stock is '9{23}', not int"):
        Layout("{stock:int}/{product_id}").read_path(f"{'9' * 23}/m1.jpg")


@pytest.mark.parametrize(
    "template",
    [
        "",
        "{image}",
        "{category}/{image}",
        "{product_id",
        "{product_id}/{product_id}",
        "{product_id:date}",
        "{1}/{product_id}",
        "{source}/{product_id}",
    ],
)
def test_layouts_without_a_usable_product_id_are_refused(template: str) -> None:
    with pytest.raises(BadSettings, match="--layout"):
        Layout(template)


@pytest.mark.parametrize(
    ("path", "product_id", "metadata"),
    [
        ("shoes/boots/b7/front.jpg", "b7", {"category": "shoes/boots"}),
        ("b7/front.jpg", "b7", {}),
        ("b7.jpg", "b7", {}),
    ],
)
def test_without_a_layout_the_folder_is_the_product(path: str, product_id: str, metadata: dict[str, str]) -> None:
    place = FolderRule().read_path(path)
    assert (place.product_id, place.metadata) == (product_id, metadata)


class OverflowingEncoder(PixelEncoder):
    """Returns NaN for every third image, as half precision does when it overflows."""

    def encode_images(self, batch: Pixels) -> Vectors:
        vectors = super().encode_images(batch)
        vectors[::3] = np.nan
        return vectors


def test_an_image_whose_vector_is_not_finite_is_rejected(new_store: NewStore, catalogue: Path) -> None:
    store, report = new_store(PIXELS.fingerprint), Report()
    images = list(FolderSource(catalogue / "photos", LAYOUT).images())[:30]

    bring(images, OverflowingEncoder(), store, report, batch_size=30)

    assert (report.stored, report.rejected, store.count()) == (20, 10, 20)
    assert "--dtype float32" in report.first_rejections[0].reason


class SlowEncoder(PixelEncoder):
    """Measures how many images were listed but are not encoded yet."""

    def __init__(self) -> None:
        self.listed = self.encoded = self.max_waiting = 0

    def watch(self, images: list[ProductImage | Rejection]) -> Iterator[ProductImage | Rejection]:
        for item in images:
            self.listed += 1
            self.max_waiting = max(self.max_waiting, self.listed - self.encoded)
            yield item

    def encode_images(self, batch: Pixels) -> Vectors:
        time.sleep(0.02)
        self.encoded += len(batch)
        return super().encode_images(batch)


def test_the_images_in_memory_do_not_grow_with_the_catalogue(new_store: NewStore, catalogue: Path) -> None:
    slow, images = SlowEncoder(), list(FolderSource(catalogue / "photos", LAYOUT).images())

    context = PipelineContext(LazyEngine(lambda: Engine(slow, batch_size=4)), PipelineLimits(workers=2))
    ingest_images(slow.watch(images), RowScope("test"), new_store(PIXELS.fingerprint), Report(), context)

    assert slow.listed == slow.encoded == 192
    assert slow.max_waiting <= 20 + 20 * 4


class StopError(Exception):
    """Any error that stops a run."""


def context(cancel: CancelToken | None = None) -> PipelineContext:
    """Two workers, and batches of eight images."""
    engine = LazyEngine(lambda: Engine(PIXELS, 8))
    return PipelineContext(engine, PipelineLimits(workers=2), cancel=cancel or CancelToken())


def call_at(
    number: int, images: Iterator[ProductImage | Rejection], act: Callable[[], None]
) -> Iterator[ProductImage | Rejection]:
    """List images, and call a function before the one of that number."""
    for n, item in enumerate(images):
        if n == number:
            act()
        yield item


def stop() -> None:
    raise StopError


def test_an_error_of_the_source_stops_the_run_and_its_threads(new_store: NewStore, catalogue: Path) -> None:
    store, report, threads = new_store(PIXELS.fingerprint), Report(), threading.active_count()
    images = call_at(150, FolderSource(catalogue / "photos", LAYOUT).images(), stop)

    with pytest.raises(StopError):
        ingest_images(images, RowScope("test"), store, report, context())

    assert 0 < report.stored == store.count() < 192
    assert threading.active_count() <= threads


def test_an_error_of_the_progress_callback_stops_the_run_and_its_threads(new_store: NewStore, catalogue: Path) -> None:
    def show(done: int) -> None:
        if done >= 50:
            raise StopError

    store, report, threads = new_store(PIXELS.fingerprint), Report(on_progress=show), threading.active_count()

    with pytest.raises(StopError):
        ingest_images(FolderSource(catalogue / "photos", LAYOUT).images(), RowScope("test"), store, report, context())

    assert 50 <= report.stored == store.count() < 192
    assert threading.active_count() <= threads


def test_a_cancelled_run_keeps_what_it_stored(new_store: NewStore, catalogue: Path) -> None:
    store, report, threads = new_store(PIXELS.fingerprint), Report(), threading.active_count()
    cancel = CancelToken()
    images = call_at(150, FolderSource(catalogue / "photos", LAYOUT).images(), cancel.cancel)

    with pytest.raises(RunCancelled):
        ingest_images(images, RowScope("test"), store, report, context(cancel))

    assert 0 < report.stored == store.count() < 192
    assert threading.active_count() <= threads
    run(FolderSource(catalogue / "photos", LAYOUT), store)
    assert store.count() == 192


def test_a_cancelled_run_stops_while_it_lists_unchanged_images(new_store: NewStore, catalogue: Path) -> None:
    store, cancel, report = new_store(PIXELS.fingerprint), CancelToken(), Report()
    source = FolderSource(catalogue / "photos", LAYOUT)
    run(source, store)

    with pytest.raises(RunCancelled):
        ingest_images(
            call_at(20, source.images(), cancel.cancel), RowScope(source.name), store, report, context(cancel)
        )

    assert report.summary().unchanged == 20


def test_a_batch_that_waits_for_the_encoder_is_not_encoded_after_a_cancel() -> None:
    cancel, started, release = CancelToken(), threading.Event(), threading.Event()

    class BlockedEncoder(PixelEncoder):
        def encode_images(self, batch: Pixels) -> Vectors:
            started.set()
            assert release.wait(10)
            return super().encode_images(batch)

    engine = LazyEngine(lambda: Engine(BlockedEncoder(), parallel_batches=1))
    pixels = [PixelEncoder().prepare(Image.new("RGB", (20, 20)))]
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(engine.encode, pixels, cancel)
        assert started.wait(10)
        second = pool.submit(engine.encode, pixels, cancel)
        cancel.cancel()
        release.set()
        assert first.result().shape == (1, 768)
        with pytest.raises(RunCancelled):
            second.result()


def test_background_stages_pass_on_every_item_in_order() -> None:
    doubled = in_parallel(lambda n: 2 * n, in_background(range(200), ahead=3), workers=4, ahead=5)
    assert list(doubled) == list(range(0, 400, 2))


def test_a_background_stage_that_is_closed_ends_its_thread_and_its_source() -> None:
    closed = threading.Event()

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    stage = in_background(endless(), ahead=2)
    assert next(stage) == 1
    stage.close()
    assert closed.wait(1)
