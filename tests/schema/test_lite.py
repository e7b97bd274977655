"""LiteReader, which reads the memory of Milvus Lite, returns what Milvus Lite itself returns."""

import json
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from conftest import DIM, PLAIN, a_row
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike.schema.errors import StoreUnavailable
from lookalike.schema.filters.expression import column_in
from lookalike.schema.milvus.connection import Connection
from lookalike.schema.milvus.create import create_columns, version_name
from lookalike.schema.milvus.lite.damage import require_intact
from lookalike.schema.milvus.lite.reader import LiteReader
from lookalike.schema.milvus.lite.segments import Segment
from lookalike.schema.milvus.reader import ServerReader
from lookalike.schema.milvus.store import Store
from lookalike.schema.product import ImageRow, Vector

KEYS = [str(n) for n in range(12)]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with Store.create(str(tmp_path_factory.mktemp("lite") / "test.db"), PLAIN) as store:
        yield store


def row(name: str, seed: int) -> ImageRow:
    number = sum(name.encode())
    # No two rows have the same score.
    return a_row(name, f"p{number % 3}", random_unit(1000 * seed + number), {"price": seed} if seed % 4 else {})


def random_unit(seed: int) -> Vector:
    vector = np.random.default_rng(seed).normal(size=DIM)
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)


steps = st.lists(
    st.tuples(st.just("upsert"), st.dictionaries(st.sampled_from(KEYS), st.integers(0, 99), min_size=1))
    | st.tuples(st.just("delete"), st.sets(st.sampled_from(KEYS), min_size=1).map(dict.fromkeys))
    | st.tuples(st.just("flush"), st.just({})),
    max_size=6,
)


@settings(max_examples=40)
@given(steps=steps)
def test_both_readers_agree_after_any_upserts_deletes_and_flushes(
    opened: Store, steps: list[tuple[str, dict[str, int]]]
) -> None:
    for step, rows in steps:
        if step == "upsert":
            opened.upsert([row(key, seed) for key, seed in rows.items()])
        elif step == "delete":
            opened.delete([row(key, 0).image_id for key in rows])
        else:
            opened.flush()
        assert_readers_agree(opened)


def assert_readers_agree(store: Store) -> None:
    ours, theirs = LiteReader(store.connection, store.version), ServerReader(store.connection, store.version)
    queries = [random_unit(1000), random_unit(1001)]
    for where in ("", 'metadata["price"] < 50', column_in("product_id", ["p1", "p2"])):
        assert ours.count(where, "Strong") == theirs.count(where, "Strong")
        for limit in (3, 99):
            near, expected = (reader.search(queries, limit, where, ["product_id"], None) for reader in (ours, theirs))
            assert [[hit["image_id"] for hit in hits] for hits in near] == [
                [hit["image_id"] for hit in hits] for hits in expected
            ]
            scores, others = ([hit["score"] for hits in result for hit in hits] for result in (near, expected))
            assert np.allclose(scores, others, atol=1e-5)
        fields = ["product_id", "metadata", "image_mtime"]
        rows, others = (
            sorted(reader.fetch(where, fields, 99, "Strong"), key=lambda row: str(row["image_id"]))
            for reader in (ours, theirs)
        )
        assert rows == others


def test_a_filter_that_is_not_supported_is_evaluated_by_milvus_lite(opened: Store) -> None:
    opened.upsert([row("a", 1)])
    assert opened.count('product_id like "p%" and 1 == 1') == opened.count('product_id like "p%"') > 0


def test_searches_during_writes_miss_no_row(tmp_path: Path) -> None:
    with Store.create(str(tmp_path / "busy.db"), PLAIN) as store:
        stable = [row(f"stable {n}", n) for n in range(50)]
        store.upsert(stable)
        done = threading.Event()

        def write() -> None:
            for turn in range(12):
                store.upsert([row(f"other {n}", n + turn) for n in range(20)])
                store.upsert(stable)
                if turn % 3 == 0:
                    store.flush()
            done.set()

        writer = threading.Thread(target=write)
        writer.start()
        expected = {item.image_id for item in stable}
        while not done.is_set():
            image_ids = [hit["image_id"] for hit in store.search(random_unit(7), 500)]
            assert expected <= set(image_ids)
            assert len(image_ids) == len(set(image_ids))
            assert store.count(column_in("image_id", expected)) == 50
        writer.join()
        assert store.count() == 70


def test_two_spellings_of_one_path_are_one_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with Store.create("../x.db", PLAIN) as one, Store.open(str(tmp_path / "x.db")) as other:
        assert other.count() == 0
        one.upsert([row("a", 1), row("b", 1)])
        one.delete([row("a", 1).image_id])
        assert (one.count(), other.count()) == (1, 1)
        monkeypatch.chdir(tmp_path)
        one.close()
        other.upsert([row("c", 1)])
        assert other.count() == 2


def test_a_vector_of_zeros_scores_zero_with_every_row(opened: Store) -> None:
    opened.upsert([row("a", 1)])
    assert {hit["score"] for hit in opened.search(np.zeros(DIM, dtype=np.float32), 5)} == {0.0}


def test_a_segment_caches_the_columns_that_were_used_last() -> None:
    table = pa.table({"metadata": ['{"price": 5}']})
    segment = Segment({"a": 0}, np.array([1], dtype=np.uint64), table, np.eye(1, DIM, dtype=np.float32))
    columns = [weakref.ref(segment.column("metadata", f"column {n}")) for n in range(100)]
    in_memory = [n for n, column in enumerate(columns) if column() is not None]
    assert 0 < len(in_memory) < 50
    assert in_memory == list(range(100 - len(in_memory), 100))


@pytest.mark.parametrize("file", ["manifest.json", "partitions/_default/data/*.parquet", "schema.json"])
def test_a_store_that_lacks_a_file_is_refused_before_milvus_lite_deletes_more(file: str, tmp_path: Path) -> None:
    uri = tmp_path / "x.db"
    with Store.create(str(uri), PLAIN) as store:
        store.upsert([a_row("1.jpg")])
        store.flush()
        [missing] = (uri / "collections" / store.version).glob(file)
    missing.rename(tmp_path / "saved")
    before = sorted(uri.rglob("*"))
    with pytest.raises(StoreUnavailable, match=rf"is damaged: {missing} is missing\. Nothing was changed"):
        Store.open(str(uri))
    assert sorted(uri.rglob("*")) == before
    (tmp_path / "saved").rename(missing)
    with Store.open(str(uri)) as store:
        assert store.count() == 1


def test_an_interrupted_creation_is_no_damage(tmp_path: Path) -> None:
    uri = tmp_path / "x.db"
    connection = Connection.connect(str(uri), "")
    create_columns(connection, version_name("products", 1), PLAIN)
    connection.close()
    with Store.create(str(uri), PLAIN) as store:
        assert store.count() == 0


def test_a_manifest_of_a_newer_milvus_lite_is_not_called_damaged(tmp_path: Path) -> None:
    with Store.create(str(tmp_path / "x.db"), PLAIN) as store:
        store.upsert([a_row("1.jpg")])
        store.flush()
    [manifest] = (tmp_path / "x.db").glob("collections/*/manifest.json")
    content = json.loads(manifest.read_text())
    assert content["manifest_format_version"] == 2
    manifest.write_text(json.dumps({"manifest_format_version": 3, "shards": {}}))
    require_intact(str(tmp_path / "x.db"))
    manifest.write_text(json.dumps({**content, "partitions": {"_default": {"data_files": ["a"], "delta_files": []}}}))
    with pytest.raises(StoreUnavailable, match="a is missing"):
        require_intact(str(tmp_path / "x.db"))
