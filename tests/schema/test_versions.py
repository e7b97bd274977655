"""Moving a collection to another encoder loses no row, does not interrupt searches, and can be rolled back."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from catalogue import draw
from conftest import bring
from PIL import Image
from pyarrow import parquet

from lookalike.encode.engine import Engine, LazyEngine
from lookalike.encode.models.pixels import PixelEncoder
from lookalike.encode.preprocess import Pixels
from lookalike.ingest.admin.export import export_collection
from lookalike.ingest.admin.parquet import check_export_file, export_rows, import_rows
from lookalike.ingest.admin.reindex import ReindexResult, reindex
from lookalike.ingest.pipeline.limits import PipelineLimits
from lookalike.ingest.pipeline.stages import PipelineContext
from lookalike.ingest.reports.report import Report
from lookalike.ingest.sources.folder import FolderSource
from lookalike.ingest.sources.layout import FolderRule
from lookalike.ingest.threshold import Threshold
from lookalike.schema.collection import LEFT_PROPERTY, Fingerprint
from lookalike.schema.errors import BadSettings, BadSource, EncoderMismatch, LimitExceeded, StoreUnavailable
from lookalike.schema.milvus.create import _index_product_ids, create_columns, version_name
from lookalike.schema.milvus.store import Store
from lookalike.schema.milvus.versions import Versions
from lookalike.schema.product import ProductImage, Vectors

FIELDS = ("product_id", "image", "source", "image_hash", "metadata_hash", "image_size", "image_mtime", "metadata")


class Backwards(PixelEncoder):
    """Another encoder with vectors of the same length, which must never be mixed with the first one's."""

    fingerprint = Fingerprint("backwards", "none", PixelEncoder.dim, "flatten", "resize, backwards")

    def __init__(self, before_batch: Callable[[], object] = lambda: None) -> None:
        self.before_batch = before_batch

    def encode_images(self, batch: Pixels) -> Vectors:
        self.before_batch()
        vectors: Vectors = np.ascontiguousarray(super().encode_images(batch)[:, ::-1])
        return vectors


class Stopped(Exception):
    """Stands for any error that ends a reindex."""


class Shop:
    """A folder of images and the collection that is filled from it."""

    def __init__(self, folder: Path, uri: str, name: str) -> None:
        self.folder, self.uri, self.name = folder, uri, name

    def store(self) -> Store:
        return Store.open(self.uri, collection=self.name)

    def ingest(self, store: Store, encoder: PixelEncoder | None = None) -> None:
        bring(FolderSource(self.folder, FolderRule(), "shop").images(), encoder or PixelEncoder(), store)

    def reindex(
        self,
        encoder: PixelEncoder,
        missing: str = "0",
        report: Report | None = None,
        kind: type[Versions] = Versions,
    ) -> ReindexResult:
        with kind(self.uri, collection=self.name) as versions:
            context = PipelineContext(LazyEngine(lambda: Engine(encoder, 4)), PipelineLimits(workers=2))
            return reindex(versions, context, report or Report(), Threshold(missing))

    def rows(self, *fields: str) -> dict[str, tuple[str, ...]]:
        with self.store() as store:
            return {row["image_id"]: tuple(str(row[f]) for f in fields) for row in store.rows(fields=fields)}


_names = (f"v{n}" for n in range(1_000))


@pytest.fixture
def shop(uri: str, tmp_path: Path) -> Iterator[Shop]:
    """Thirty images in a new collection."""
    for n in range(30):
        draw(tmp_path / f"p{n // 2}" / f"{n}.png", n)
    shop = Shop(tmp_path, uri, next(_names))
    with Store.create(uri, PixelEncoder.fingerprint, collection=shop.name) as store:
        shop.ingest(store)
        yield shop


def test_a_reindex_moves_every_row_and_a_rollback_moves_back(shop: Shop) -> None:
    before, vectors = shop.rows(*FIELDS), shop.rows("embedding")

    moved = shop.reindex(Backwards())

    assert shop.rows(*FIELDS) == before
    assert shop.rows("embedding") != vectors
    with shop.store() as store:
        assert store.fingerprint == Backwards.fingerprint
        assert store.version == moved.after
    with Versions(shop.uri, collection=shop.name) as versions:
        assert [version.name for version in versions.all()] == [moved.before, moved.after]
        assert versions.get_previous().name == moved.before
        with pytest.raises(BadSettings, match="is live"):
            versions.drop(moved.after)
        versions.make_live(moved.before)
        assert shop.rows("embedding") == vectors
        assert versions.get_previous().name == moved.after, "a rollback can be rolled back"
        with pytest.raises(BadSettings, match="no version"):
            versions.make_live("nothing")
        versions.drop(moved.after)
        assert [version.name for version in versions.all()] == [moved.before]


def test_a_reindex_with_the_same_encoder_does_nothing(shop: Shop) -> None:
    moved = shop.reindex(PixelEncoder())
    assert moved.before == moved.after


def test_an_open_store_stays_with_its_version(shop: Shop) -> None:
    with shop.store() as opened:
        vector = PixelEncoder().encode_images(PixelEncoder().prepare(Image.new("RGB", (9, 9)))[None])[0]
        before = opened.search(vector, 5, fields=["product_id"])
        shop.reindex(Backwards())
        assert opened.search(vector, 5, fields=["product_id"]) == before
        with pytest.raises(StoreUnavailable, match="was moved to another version"):
            opened.require_live()
        opened.delete([before[0]["image_id"]])
    assert len(shop.rows()) == 30


def test_a_stopped_reindex_is_continued(shop: Shop) -> None:
    batches = iter(range(100))

    def stop_at_the_third() -> None:
        if next(batches) == 3:
            raise Stopped

    with pytest.raises(Stopped):
        shop.reindex(Backwards(stop_at_the_third))
    report = Report()
    shop.reindex(Backwards(), report=report)

    assert 0 < report.summary().embedded < 30
    assert len(shop.rows()) == 30
    with Versions(shop.uri, collection=shop.name) as versions:
        assert len(versions.all()) == 2


@pytest.mark.parametrize("index", ["no index", "one index"])
def test_a_version_that_a_killed_reindex_left_without_its_indexes_is_listed_and_continued(
    shop: Shop, index: str
) -> None:
    with Versions(shop.uri, collection=shop.name) as versions:
        unfinished = version_name(shop.name, 2)
        create_columns(versions._connection, unfinished, Backwards.fingerprint)
        if index == "one index":
            _index_product_ids(versions._connection, unfinished)
        for version in versions.all():
            with versions.open(version.name) as store:
                assert store.count() == (30 if version.live else 0)
    assert shop.reindex(Backwards()).after == unfinished
    assert len(shop.rows()) == 30


def test_a_rollback_finds_the_version_before_even_after_the_clock_was_set_back(shop: Shop) -> None:
    with Versions(shop.uri, collection=shop.name) as versions:
        first, tomorrow = versions.live.name, time.time_ns() + 86_400 * 10**9
        second, third = versions.make(Backwards.fingerprint), versions.make(Backwards.fingerprint)
        versions.make_live(second)
        # The clock was a day ahead until here.
        versions._connection.call("alter_collection_properties", first, {LEFT_PROPERTY: str(tomorrow)})
        versions.make_live(third)
        assert versions.get_previous().name == second


def test_changes_during_a_reindex_are_not_lost(shop: Shop) -> None:
    batches = iter(range(100))

    def change_the_catalogue() -> None:
        if next(batches) == 2:
            draw(shop.folder / "p3" / "new.png", 300)
            draw(shop.folder / "p0" / "0.png", 301, at=2 * 10**18)
            (shop.folder / "p1" / "2.json").write_text('{"price": 5}')
            with shop.store() as store:
                shop.ingest(store)
                gone = ProductImage.named("shop", "p9", "p9/18.png", "", {})
                store.delete([gone.image_id])

    shop.reindex(Backwards(change_the_catalogue))

    with shop.store() as store:
        assert store.fingerprint == Backwards.fingerprint
        assert store.count() == 30
        metadata = [row["metadata"] for row in store.fetch(where='product_id == "p1"', fields=["metadata"], limit=9)]
        assert {"price": 5} in metadata
        report = Report()
        bring(FolderSource(shop.folder, FolderRule(), "shop").images(), Backwards(), store, report)
    assert (report.summary().new, report.summary().unchanged) == (1, 30), "new: only the deleted image"


def test_rows_written_just_before_the_alias_moves_are_not_lost(shop: Shop) -> None:
    draw(shop.folder / "late" / "1.png", 400)

    class Late(Versions):
        """Runs an ingest after the last comparison, before the alias moves."""

        def make_live(self, version: str) -> None:
            with shop.store() as store:
                shop.ingest(store)
            super().make_live(version)

    shop.reindex(Backwards(), kind=Late)

    assert len(shop.rows()) == 31


def test_missing_images_prevent_the_move(shop: Shop) -> None:
    (shop.folder / "p0" / "0.png").unlink()
    with pytest.raises(LimitExceeded, match=r"1 of 30 images cannot be read any more"):
        shop.reindex(Backwards())
    with shop.store() as store:
        assert store.fingerprint == PixelEncoder.fingerprint
    with Versions(shop.uri, collection=shop.name) as versions:
        with pytest.raises(BadSettings, match="that was live before"):
            versions.get_previous()
        with pytest.raises(BadSettings, match="was never live"):
            versions.require_once_live(versions.all()[-1].name)
    shop.reindex(Backwards(), missing="1")
    assert len(shop.rows()) == 29


def all_rows(store: Store) -> dict[str, dict[str, Any]]:
    rows = store.rows(fields=[*FIELDS, "embedding"])
    return {row["image_id"]: {**row, "embedding": list(row["embedding"])} for row in rows}


def test_export_and_import_keep_every_row_unchanged(shop: Shop, tmp_path: Path) -> None:
    (shop.folder / "p1" / "2.json").write_text('{"price": 5.0, "n": 9007199254740993, "t": "é\\" \\\\", "l": [1, "a"]}')
    with shop.store() as store:
        shop.ingest(store)
        assert export_rows(store, tmp_path / "x.parquet") == 30
    fingerprint = check_export_file(tmp_path / "x.parquet")
    assert fingerprint == PixelEncoder.fingerprint
    with Store.create(shop.uri, fingerprint, collection=next(_names)) as other:
        assert import_rows(other, tmp_path / "x.parquet") == 30
        assert import_rows(other, tmp_path / "x.parquet") == 30
        imported = all_rows(other)
    with shop.store() as store:
        assert all_rows(store) == imported
    assert not list(tmp_path.glob("*.unfinished"))


def write_changed(path: Path, **columns: Any) -> Path:
    """Write a copy of an exported file in which some columns have other values."""
    table = parquet.read_table(path)
    for name, values in columns.items():
        field = table.schema.field(name)
        table = table.set_column(table.schema.get_field_index(name), field, pa.array(values, field.type))
    parquet.write_table(table, path.with_name("changed.parquet"))
    return path.with_name("changed.parquet")


def test_a_changed_export_is_refused(shop: Shop, tmp_path: Path) -> None:
    with shop.store() as store:
        export_rows(store, tmp_path / "x.parquet")
        with pytest.raises(BadSettings, match="is a folder"):
            export_collection(store, tmp_path)
    columns: list[dict[str, Any]] = [
        {"image_id": 30 * ["zzz"]},
        {"metadata": 30 * ["[1]"]},
        {"metadata": 30 * ["{"]},
        {"metadata": 30 * [None]},
        {"image_hash": 30 * [None]},
        {"embedding": 30 * [768 * [0.0]]},
    ]
    for change in columns:
        with pytest.raises(BadSource, match="was changed"):
            check_export_file(write_changed(tmp_path / "x.parquet", **change))
    parquet.write_table(parquet.read_table(tmp_path / "x.parquet").drop(["source"]), tmp_path / "y.parquet")
    with pytest.raises(BadSource, match="other columns"):
        check_export_file(tmp_path / "y.parquet")


def test_a_file_that_is_no_export_is_refused(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"nothing")
    with pytest.raises(BadSource, match="no Parquet file"):
        check_export_file(tmp_path / "x.parquet")
    with pytest.raises(BadSource, match="cannot be read"):
        check_export_file(tmp_path / "missing.parquet")
    with shop.store() as store, pytest.raises(BadSettings, match="cannot be written"):
        export_rows(store, tmp_path / "no" / "folder.parquet")
    with pytest.raises(EncoderMismatch):
        Store.create(shop.uri, Backwards.fingerprint, collection=shop.name)
