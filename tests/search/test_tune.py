"""How wide a graph is searched: measured against the exact answer, and kept with the collection."""

import json
from pathlib import Path

import numpy as np
import pytest
from command import fails, lookalike
from conftest import DIM, PLAIN, a_row
from PIL import Image

from lookalike.schema.filters.expression import column_in
from lookalike.schema.milvus.store import Store
from lookalike.schema.milvus.store_reader import SERVER_EF
from lookalike.search.tuning.plot import draw_curve
from lookalike.search.tuning.recall import Point, choose, measure


@pytest.fixture(scope="module")
def filled(server: str) -> Store:
    """Two thousand rows, so that there is a graph."""
    store = Store.create(server, PLAIN, collection="tuned")
    vectors = np.random.default_rng(0).normal(size=(2_000, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    store.upsert(a_row(f"{n}.jpg", f"p{n}", vector) for n, vector in enumerate(vectors))
    store.flush()
    return store


def test_recall_is_measured_against_the_exact_answer(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    points = measure(filled, 10, 30)
    assert points[0].ef == 40, "no narrower than what is asked for"
    assert points[-1].recall >= 0.99
    assert all(point.milliseconds > 0 for point in points)

    found = filled.search
    monkeypatch.setattr(filled, "search", lambda vector, limit, fields: found(vector, limit, fields=fields)[:5])
    assert {point.recall for point in measure(filled, 10, 30)} == {0.5}, "half of the nearest is half the recall"


def test_the_narrowest_search_that_suffices_is_taken() -> None:
    points = [Point(32, 0.9, 1.0), Point(64, 0.99, 2.0), Point(128, 0.999, 3.0)]
    assert choose(points, 0.99) == points[1]
    assert choose(points, 0.9999) is None


def test_what_is_kept_holds_for_searches_without_a_filter(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert filled.ef == SERVER_EF
    filled.set_search_ef(64)
    with Store.open(filled.uri, collection="tuned") as again:
        assert again.ef == 64
        asked: list[int] = []
        call = again.connection.call

        def spy(method: str, *arguments: object, **options: object) -> object:
            asked.append(options["search_params"]["params"]["ef"])  # type: ignore[index]
            return call(method, *arguments, **options)

        monkeypatch.setattr(again.connection, "call", spy)
        vector = np.eye(1, DIM, dtype=np.float32)[0]
        for limit, where in ((10, ""), (100, ""), (10, column_in("source", ["test"]))):
            assert again.search(vector, limit, where=where)
        assert asked == [64, 100, SERVER_EF]


def test_the_command(filled: Store, server: str, tmp_path: Path) -> None:
    where = ("--uri", server, "--collection", "tuned")
    few = ("--queries", "20", "--plot", tmp_path / "curve.png")
    told = lookalike("tune", *where, *few, "--format", "json", "--dry-run", cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    measured = json.loads(told.stdout)
    assert measured["chosen"] in [point["ef"] for point in measured["points"]]
    assert not measured["kept"]
    assert Image.open(tmp_path / "curve.png").size == (960, 600)

    done = lookalike("tune", *where, *few, cwd=tmp_path)
    assert b"kept with tuned__v" in done.stdout
    assert "nothing to tune" in fails(2, "tune", "--uri", _lite(tmp_path), "--collection", "c", cwd=tmp_path)


def test_a_curve_of_one_point_can_be_drawn() -> None:
    assert draw_curve([Point(64, 1.0, 0.5)], 1.0, "products").size == (960, 600)


def _lite(folder: Path) -> Path:
    Store.create(str(folder / "x.db"), PLAIN, collection="c").close()
    return folder / "x.db"
