"""`tune` measures recall against an exact search, and stores the chosen `ef` with the collection."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import fails, lookalike
from conftest import DIM, PLAIN, a_row
from PIL import Image
from pymilvus import MilvusClient

from lookalike.schema.filters.expression import column_in
from lookalike.schema.milvus.store import Store
from lookalike.schema.milvus.store_reader import SERVER_EF
from lookalike.search.tuning.plot import draw_curve
from lookalike.search.tuning.recall import Point, choose_point, measure_recall


@pytest.fixture(scope="module")
def filled(server: str) -> Store:
    """A collection of two thousand rows: enough for a server to build a graph."""
    store = Store.create(server, PLAIN, collection="tuned")
    vectors = np.random.default_rng(0).normal(size=(2_000, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    store.upsert(a_row(f"{n}.jpg", f"p{n}", vector) for n, vector in enumerate(vectors))
    store.flush()
    return store


def test_recall_is_measured_against_an_exact_search(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    points = measure_recall(filled, 10, 30)
    assert points[0].ef == 40, "at least the number of rows that the search fetches"
    assert points[-1].recall >= 0.99
    assert all(point.milliseconds > 0 for point in points)

    search = filled.search
    monkeypatch.setattr(filled, "search", lambda vector, limit, fields: search(vector, limit, fields=fields)[:5])
    assert {point.recall for point in measure_recall(filled, 10, 30)} == {0.5}, "half of the nearest is half the recall"


def test_the_smallest_ef_that_reaches_the_recall_is_chosen() -> None:
    points = [Point(32, 0.9, 1.0), Point(64, 0.99, 2.0), Point(128, 0.999, 3.0)]
    assert choose_point(points, 0.99) == points[1]
    assert choose_point(points, 0.9999) is None


def test_a_stored_ef_applies_to_searches_without_a_filter(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert filled.ef == SERVER_EF
    filled.set_search_ef(64)
    with Store.open(filled.uri, collection="tuned") as again:
        assert again.ef == 64
        sent: list[int] = []
        search = MilvusClient.search

        def spy(*arguments: Any, **options: Any) -> Any:
            sent.append(options["search_params"]["params"]["ef"])
            return search(*arguments, **options)

        monkeypatch.setattr(MilvusClient, "search", spy)
        vector = np.eye(1, DIM, dtype=np.float32)[0]
        for limit, where in ((10, ""), (100, ""), (10, column_in("source", ["test"]))):
            assert again.search(vector, limit, where=where)
        assert sent == [64, 100, SERVER_EF]


def test_the_command_measures_draws_and_stores(filled: Store, server: str, tmp_path: Path) -> None:
    collection = ("--uri", server, "--collection", "tuned")
    options = ("--queries", "20", "--plot", tmp_path / "curve.png")
    measured = lookalike("tune", *collection, *options, "--format", "json", "--dry-run", cwd=tmp_path)
    assert measured.returncode == 0, measured.stderr
    report = json.loads(measured.stdout)
    assert report["chosen"] in [point["ef"] for point in report["points"]]
    assert not report["kept"]
    assert Image.open(tmp_path / "curve.png").size == (960, 600)

    done = lookalike("tune", *collection, *options, cwd=tmp_path)
    assert b"stored with tuned__v" in done.stdout
    assert "nothing to tune" in fails(2, "tune", "--uri", lite_store(tmp_path), "--collection", "c", cwd=tmp_path)


def test_a_curve_of_one_point_can_be_drawn() -> None:
    assert draw_curve([Point(64, 1.0, 0.5)], 1.0, "products").size == (960, 600)


def lite_store(folder: Path) -> Path:
    Store.create(str(folder / "x.db"), PLAIN, collection="c").close()
    return folder / "x.db"
