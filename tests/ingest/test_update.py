"""A changing catalogue: what a run does, what it does not do twice, and what it never removes."""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from catalogue import LONG_AGO, draw
from conftest import NewStore, bring

from lookalike.encode.engine import Engine, LazyEngine
from lookalike.encode.models.pixels import PixelEncoder
from lookalike.encode.preprocess import Pixels
from lookalike.ingest.job import Job, dry_run, ingest_images, run
from lookalike.ingest.pipeline.diff import Diff
from lookalike.ingest.pipeline.existing_rows import RowScope
from lookalike.ingest.pipeline.limits import PipelineLimits
from lookalike.ingest.pipeline.prune import prune
from lookalike.ingest.pipeline.stages import PipelineContext
from lookalike.ingest.reports.report import Rejection, Report, Summary
from lookalike.ingest.sources.folder import FolderSource
from lookalike.ingest.sources.layout import FolderRule
from lookalike.ingest.threshold import PruneOptions, Threshold
from lookalike.schema.cancellation import CancelToken, RunCancelled
from lookalike.schema.collection import Fingerprint
from lookalike.schema.errors import BadSettings, LimitExceeded
from lookalike.schema.milvus.store import Store
from lookalike.schema.product import ProductImage, Vectors
from lookalike.schema.settings import CollectionAddress

ALL = PruneOptions(Threshold("100%"))


class CountingEncoder(PixelEncoder):
    """Counts the images that it encodes."""

    def __init__(self) -> None:
        self.encoded = 0
        self.sizes: list[int] = []

    def encode_images(self, batch: Pixels) -> Vectors:
        self.encoded += len(batch)
        self.sizes.append(len(batch))
        return super().encode_images(batch)


class Shop:
    """A folder of images and the collection that has to follow it."""

    def __init__(self, folder: Path, store: Store) -> None:
        self.folder, self.store = folder, store
        self.encoder = CountingEncoder()

    def update(self, images: Iterable[ProductImage | Rejection] | None = None) -> tuple[Summary, Diff]:
        self.encoder.encoded = 0
        source, report = FolderSource(self.folder, FolderRule(), "shop"), Report()
        engine = LazyEngine(lambda: Engine(self.encoder, 8, parallel_batches=2))
        context = PipelineContext(engine, PipelineLimits(workers=2))
        items = source.images() if images is None else iter(images)
        diff = ingest_images(items, RowScope(source.name), self.store, report, context)
        assert report.summary().embedded == self.encoder.encoded
        return report.summary(), diff

    def job(self, pruning: PruneOptions | None = None) -> Job:
        """What `lookalike ingest` would run."""
        return Job(
            source=FolderSource(self.folder, FolderRule(), "shop"),
            address=CollectionAddress(self.store.uri, "", self.store.name),
            encoder=None,
            load_engine=lambda _: Engine(self.encoder, 8, parallel_batches=2),
            limits=PipelineLimits(workers=2),
            columns={},
            pruning=pruning,
            max_rejected=None,
        )

    def prune(self, pruning: PruneOptions = ALL) -> Summary:
        report = Report()
        prune(self.update()[1], self.store, report, pruning)
        return report.summary()

    def rows(self) -> dict[str, tuple[object, ...]]:
        fields = ("product_id", "image", "image_hash", "image_mtime", "metadata", "embedding")
        return {row["image_id"]: tuple(str(row[name]) for name in fields) for row in self.store.rows(fields=fields)}

    def rows_of_a_new_collection(self, new_store: NewStore) -> dict[str, tuple[object, ...]]:
        """The rows that the folder makes in an empty collection."""
        store = new_store(self.encoder.fingerprint)
        bring(FolderSource(self.folder, FolderRule(), "shop").images(), PixelEncoder(), store)
        return Shop(self.folder, store).rows()


def filled_shop(folder: Path, store: Store) -> Shop:
    """A hundred images of fifty products, in the collection."""
    for n in range(100):
        draw(folder / f"p{n // 2}" / f"{n}.png", n)
    shop = Shop(folder, store)
    summary, _ = shop.update()
    assert (summary.new, summary.embedded) == (100, 100)
    return shop


@pytest.fixture(scope="module")
def lite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NewStore]:
    """Make collections on Milvus Lite; the last test runs on a server too."""
    uri = str(tmp_path_factory.mktemp("lite") / "update.db")
    stores: list[Store] = []

    def make(fingerprint: Fingerprint = PixelEncoder.fingerprint) -> Store:
        stores.append(Store.create(uri, fingerprint, collection=f"u{len(stores)}"))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


@pytest.fixture
def shop(lite: NewStore, tmp_path: Path) -> Shop:
    return filled_shop(tmp_path, lite())


def test_without_changes_nothing_is_written(shop: Shop) -> None:
    before = shop.rows()

    summary, diff = shop.update()

    assert (summary.stored, summary.unchanged, shop.encoder.encoded) == (0, 100, 0)
    assert diff.removed() == []
    assert shop.rows() == before


def test_an_image_with_the_same_size_and_mtime_is_not_read(shop: Shop) -> None:
    path = shop.folder / "p0" / "0.png"
    path.write_bytes(b"x" * path.stat().st_size)
    os.utime(path, ns=(LONG_AGO, LONG_AGO))

    assert shop.update()[0].unchanged == 100


def test_one_new_image_is_one_forward_pass(shop: Shop, lite: NewStore) -> None:
    draw(shop.folder / "p7" / "new.png", 500)

    summary, _ = shop.update()

    assert (summary.new, summary.unchanged, shop.encoder.encoded) == (1, 100, 1)
    assert shop.rows() == shop.rows_of_a_new_collection(lite)


def test_a_changed_image_replaces_its_row(shop: Shop, lite: NewStore) -> None:
    draw(shop.folder / "p3" / "6.png", 600, at=LONG_AGO + 5)

    summary, _ = shop.update()

    assert (summary.changed, summary.unchanged, shop.encoder.encoded) == (1, 99, 1)
    assert shop.rows() == shop.rows_of_a_new_collection(lite)


def test_a_touched_image_is_read_once_and_not_encoded(shop: Shop, lite: NewStore) -> None:
    os.utime(shop.folder / "p3" / "6.png", ns=(LONG_AGO, LONG_AGO + 7))

    summary, _ = shop.update()
    again, _ = shop.update()

    assert (summary.stored, summary.unchanged, summary.embedded) == (1, 100, 0)
    assert (again.stored, again.unchanged) == (0, 100)
    assert shop.rows() == shop.rows_of_a_new_collection(lite)


def test_a_file_written_a_moment_ago_is_read_again(shop: Shop) -> None:
    path = draw(shop.folder / "p0" / "0.png", 700)
    os.utime(path)
    now = path.stat()
    assert shop.update()[0].changed == 1

    # Other bytes of the same size within the same tick of the clock: size and mtime stay the same.
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    os.utime(path, ns=(now.st_atime_ns, now.st_mtime_ns))

    assert shop.update()[0].changed == 1


def test_changed_metadata_costs_no_forward_pass(shop: Shop) -> None:
    for n in range(4):
        (shop.folder / f"p{n}" / f"{2 * n}.json").write_text('{"price": 9.5, "tags": ["a", "b"]}')

    summary, _ = shop.update()

    assert (summary.metadata, summary.unchanged, shop.encoder.encoded) == (4, 96, 0)
    rows = shop.store.fetch(where='exists metadata["price"]', fields=["metadata"], limit=10)
    assert [row["metadata"] for row in rows] == 4 * [{"price": 9.5, "tags": ["a", "b"]}]


def test_a_copied_or_renamed_image_reuses_the_vector(shop: Shop, lite: NewStore) -> None:
    (shop.folder / "copy").mkdir()
    for n in range(3):
        os.link(shop.folder / "p0" / "0.png", shop.folder / "copy" / f"{n}.png")
    (shop.folder / "p9").rename(shop.folder / "renamed")

    summary, _ = shop.update()
    shop.prune()

    assert (summary.new, shop.encoder.encoded) == (5, 0)
    assert shop.rows() == shop.rows_of_a_new_collection(lite)


def test_new_images_with_the_same_bytes_are_encoded_once(shop: Shop, lite: NewStore) -> None:
    for n in range(40):
        draw(shop.folder / f"twin{n}" / "x.png", 900 + n % 2)

    summary, _ = shop.update()

    assert (summary.new, shop.encoder.encoded) == (40, 2)
    assert shop.rows() == shop.rows_of_a_new_collection(lite)


def test_images_that_swap_files_get_the_right_vectors(shop: Shop, lite: NewStore) -> None:
    one, other = shop.folder / "p0" / "0.png", shop.folder / "p40" / "80.png"
    a, b = one.read_bytes(), other.read_bytes()
    for path, content in ((one, b), (other, a)):
        path.write_bytes(content)
        os.utime(path, ns=(LONG_AGO, LONG_AGO + 9))

    summary, _ = shop.update()

    assert summary.changed == 2
    assert shop.rows() == shop.rows_of_a_new_collection(lite)


def test_prune_deletes_missing_images_and_nothing_of_another_source(shop: Shop) -> None:
    bring(FolderSource(shop.folder / "p40", FolderRule(), "other").images(), PixelEncoder(), shop.store)
    for n in range(5):
        (shop.folder / f"p{n}" / f"{2 * n}.png").unlink()

    assert shop.prune().removed == 5
    assert shop.store.count() == 97
    assert shop.store.count('source == "other"') == 2
    assert shop.prune().removed == 0


def test_prune_past_its_limit_deletes_nothing(shop: Shop) -> None:
    for n in range(15):
        (shop.folder / f"p{n}" / f"{2 * n}.png").unlink()
        (shop.folder / f"p{n}" / f"{2 * n + 1}.png").unlink()

    with pytest.raises(LimitExceeded, match=r"remove 30 of the 100 rows .* --max-removals 20%. Nothing was removed"):
        shop.prune(PruneOptions(Threshold("20%")))
    assert shop.store.count() == 100
    assert shop.prune(PruneOptions(Threshold("30"))).removed == 30


def test_an_image_that_becomes_unreadable_keeps_its_row_unless_prune_includes_it(shop: Shop) -> None:
    path = shop.folder / "p0" / "0.png"
    path.write_bytes(b"broken")

    summary, diff = shop.update()

    assert (summary.rejected, summary.unchanged, diff.removed()) == (1, 99, [])
    assert shop.prune().removed == 0
    assert shop.prune(PruneOptions(Threshold("100%"), unreadable=True)).removed == 1
    assert shop.store.count() == 99


def test_an_image_with_invalid_metadata_does_not_count_as_unreadable(shop: Shop) -> None:
    (shop.folder / "p0" / "0.json").write_text("no json")
    assert shop.update()[0].rejected == 1
    assert shop.prune(PruneOptions(Threshold("100%"), unreadable=True)).removed == 0


def test_prune_deletes_nothing_when_part_of_the_source_could_not_be_read(shop: Shop) -> None:
    (shop.folder / "p1" / "2.png").unlink()
    images = list(FolderSource(shop.folder, FolderRule(), "shop").images())

    _, diff = shop.update([*images, Rejection("/shop/p9", "the folder cannot be read", incomplete=True)])

    with pytest.raises(LimitExceeded, match="could not be read"):
        prune(diff, shop.store, Report(), ALL)
    assert shop.store.count() == 100


def test_a_dry_run_reports_the_same_and_writes_nothing(shop: Shop) -> None:
    draw(shop.folder / "p7" / "new.png", 500)
    draw(shop.folder / "p3" / "6.png", 600, at=LONG_AGO + 5)
    (shop.folder / "p4" / "8.json").write_text('{"price": 1}')
    (shop.folder / "p5" / "10.png").unlink()
    before, report = shop.rows(), Report()

    dry_run(shop.job(ALL), report, CancelToken())

    assert shop.rows() == before
    expected, (done, _) = report.summary(), shop.update()
    for name in ("stored", "new", "changed", "metadata", "unchanged", "rejected"):
        counts = {"stored": 3, "unchanged": 97, "rejected": 0}
        assert getattr(expected, name) == getattr(done, name) == counts.get(name, 1)
    assert expected.removed == 1


def test_a_run_that_is_cancelled_before_prune_deletes_nothing(shop: Shop) -> None:
    (shop.folder / "p5" / "10.png").unlink()
    cancel = CancelToken()
    report = Report(on_progress=lambda done: cancel.cancel() if done == 99 else None)

    with pytest.raises(RunCancelled):
        run(shop.job(ALL), report, cancel)

    assert (report.summary().unchanged, report.summary().removed) == (99, 0)
    assert shop.store.count() == 100
    report = Report()
    run(shop.job(ALL), report, CancelToken())
    assert report.summary().removed == 1


def test_a_dry_run_can_be_cancelled(shop: Shop) -> None:
    cancel = CancelToken()
    cancel.cancel()
    with pytest.raises(RunCancelled):
        dry_run(shop.job(), Report(), cancel)


def test_many_images_that_swap_files_are_encoded_in_batches(shop: Shop, lite: NewStore) -> None:
    for n in range(40):
        draw(shop.folder / f"p{n // 2}" / f"{n}.png", 99 - n, at=LONG_AGO + 3)
        draw(shop.folder / f"p{(99 - n) // 2}" / f"{99 - n}.png", n, at=LONG_AGO + 3)
    # Eight new images fill a batch in between: the images after it find their vectors overwritten by those before it.
    for n in range(8):
        draw(shop.folder / "p1x" / f"{n}.png", 300 + n)

    assert shop.update()[0].changed == 80
    assert shop.encoder.encoded == 8 + 24
    assert max(shop.encoder.sizes) == 8
    assert shop.rows() == shop.rows_of_a_new_collection(lite)


def test_an_image_that_is_listed_twice_counts_once(shop: Shop) -> None:
    images = list(FolderSource(shop.folder, FolderRule(), "shop").images())
    summary, _ = shop.update([*images, images[0]])
    assert (summary.unchanged, summary.rejected) == (100, 1)


def test_existing_rows_are_read_past_the_window_of_one_query(shop: Shop) -> None:
    shop.store.window = 16
    summary, diff = shop.update()
    assert (summary.unchanged, diff.removed()) == (100, [])


@pytest.mark.parametrize(("text", "of_1000"), [("20%", 200), ("0", 0), ("7", 7), ("100%", 1000), ("0.5 %", 5)])
def test_a_threshold_is_a_number_or_a_percentage(text: str, of_1000: int) -> None:
    assert Threshold(text).of(1_000) == of_1000


@pytest.mark.parametrize("text", ["", "many", "-1", "120%", "20 percent", "1.5"])
def test_other_thresholds_are_refused(text: str) -> None:
    with pytest.raises(BadSettings, match="is not a limit"):
        Threshold(text)


@pytest.fixture
def vanishing(shop: Shop) -> Callable[[], Iterator[ProductImage | Rejection]]:
    """The images of the shop; every third file is deleted before it is read."""

    def images() -> Iterator[ProductImage | Rejection]:
        for n, item in enumerate(FolderSource(shop.folder, FolderRule(), "shop").images()):
            if n % 3 == 0 and isinstance(item, ProductImage):
                Path(item.image).unlink()
            yield item

    return images


def test_images_deleted_during_the_run_keep_their_rows(
    shop: Shop, vanishing: Callable[[], Iterator[ProductImage | Rejection]]
) -> None:
    summary, diff = shop.update(vanishing())
    assert (summary.rejected, summary.unchanged, diff.removed()) == (34, 66, [])
    assert shop.store.count() == 100


def test_all_kinds_of_changes_on_lite_and_on_a_server(new_store: NewStore, tmp_path: Path) -> None:
    shop = filled_shop(tmp_path, new_store(PixelEncoder.fingerprint))
    draw(shop.folder / "p7" / "new.png", 500)
    draw(shop.folder / "p3" / "6.png", 600, at=LONG_AGO + 5)
    (shop.folder / "p4" / "8.json").write_text('{"price": 9.5, "tags": ["a"]}')
    os.utime(shop.folder / "p5" / "10.png", ns=(LONG_AGO, LONG_AGO + 7))
    (shop.folder / "p9").rename(shop.folder / "renamed")
    for n in range(5):
        (shop.folder / f"p{20 + n}" / f"{40 + 2 * n}.png").unlink()

    summary, diff = shop.update()
    report = Report()
    prune(diff, shop.store, report, ALL)

    assert (summary.new, summary.changed, summary.metadata, summary.embedded) == (3, 1, 1, 2)
    assert report.summary().removed == 7
    assert shop.rows() == shop.rows_of_a_new_collection(new_store)
    assert shop.update()[0].stored == 0
