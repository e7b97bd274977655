"""What is read from Milvus Lite's memory is what Milvus Lite itself would answer."""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import DIM, PLAIN, a_row
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike.schema.filters.expression import column_in
from lookalike.schema.milvus.lite.reader import LiteReader
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
    # No two rows are equally near.
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
def test_whatever_was_written_flushed_and_deleted(opened: Store, steps: list[tuple[str, dict[str, int]]]) -> None:
    for step, rows in steps:
        if step == "upsert":
            opened.upsert([row(key, seed) for key, seed in rows.items()])
        elif step == "delete":
            opened.delete([row(key, 0).image_id for key in rows])
        else:
            opened.flush()
        compare(opened)


def compare(store: Store) -> None:
    ours, theirs = LiteReader(store._wire, store.version), ServerReader(store._wire, store.version)
    asked = [random_unit(1000), random_unit(1001)]
    for where in ("", 'metadata["price"] < 50', column_in("product_id", ["p1", "p2"])):
        assert ours.count(where, "Strong") == theirs.count(where, "Strong")
        for limit in (3, 99):
            near, expected = (reads.search(asked, limit, where, ["product_id"], None) for reads in (ours, theirs))
            assert [[hit["image_id"] for hit in answer] for answer in near] == [
                [hit["image_id"] for hit in answer] for answer in expected
            ]
            scores, others = ([hit["score"] for answer in answers for hit in answer] for answers in (near, expected))
            assert np.allclose(scores, others, atol=1e-5)
        fields = ["product_id", "metadata", "image_mtime"]
        rows, others = (
            sorted(reads.fetch(where, fields, 99, "Strong"), key=lambda row: str(row["image_id"]))
            for reads in (ours, theirs)
        )
        assert rows == others


def test_what_is_not_understood_is_left_to_milvus(opened: Store) -> None:
    opened.upsert([row("a", 1)])
    assert opened.count('product_id like "p%" and 1 == 1') == opened.count('product_id like "p%"') > 0


def test_searches_beside_a_writer_miss_nothing(tmp_path: Path) -> None:
    with Store.create(str(tmp_path / "busy.db"), PLAIN) as store:
        kept = [row(f"kept {n}", n) for n in range(50)]
        store.upsert(kept)
        done = threading.Event()

        def write() -> None:
            for turn in range(12):
                store.upsert([row(f"other {n}", n + turn) for n in range(20)])
                store.upsert(kept)
                if turn % 3 == 0:
                    store.flush()
            done.set()

        writer = threading.Thread(target=write)
        writer.start()
        wanted = {one.image_id for one in kept}
        while not done.is_set():
            found = [hit["image_id"] for hit in store.search(random_unit(7), 500)]
            assert wanted <= set(found)
            assert len(found) == len(set(found))
            assert store.count(column_in("image_id", wanted)) == 50
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


def test_a_vector_of_zeros_is_like_nothing(opened: Store) -> None:
    opened.upsert([row("a", 1)])
    assert {hit["score"] for hit in opened.search(np.zeros(DIM, dtype=np.float32), 5)} == {0.0}


def test_asking_for_ever_other_columns_keeps_few_of_them(opened: Store) -> None:
    opened.upsert([row("a", 1)])
    for n in range(100):
        assert opened.count(f'metadata["column {n}"] == 1') == 0
    assert isinstance(opened._reads, LiteReader)
    view = opened._reads._view()
    assert view is not None
    assert all(len(part._columns) < 50 for part, _ in view.parts)
