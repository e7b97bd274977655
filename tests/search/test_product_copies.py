"""Copies of an image within one product are found exactly, on Milvus Lite and on a server."""

import json
from pathlib import Path

import numpy as np
import pytest
from catalogue import draw
from command import lookalike
from conftest import DIM, NewStore, unit

from lookalike.schema.product import FileState, ImageRow, ProductImage, Vector
from lookalike.search.explore import product_copies
from lookalike.search.explore.duplicates import find_duplicates
from lookalike.search.explore.product_copies import find_copies


def a_row(product_id: str, name: str, vector: Vector, content: str = "") -> ImageRow:
    image = ProductImage.named("test", product_id, name, f"/photos/{name}", {})
    return ImageRow.of(image, FileState(content or name, 1, 2), vector)


def test_copies_are_grouped_by_product_and_images_of_other_products_are_none(new_store: NewStore) -> None:
    store = new_store()
    near = unit(1, 0.01)
    store.upsert(
        [
            *(a_row("mug", name, vector) for name, vector in (("a", unit(1)), ("b", near), ("c", unit(0, 1)))),
            *(a_row("cup", name, unit(1)) for name in ("d",)),
            *(a_row("hat", name, unit(0, 0, 1), content="same") for name in ("e", "f", "g")),
        ]
    )
    groups = find_copies(store, 0.99)
    assert [[hit.image for hit in group.images] for group in groups] == [
        ["/photos/e", "/photos/f", "/photos/g"],
        ["/photos/a", "/photos/b"],
    ]
    assert groups[0].score == 1.0
    assert groups[1].score == pytest.approx(float(near[0]))
    assert [len(group.images) for group in find_copies(store, 1.0)] == [3]
    assert [{hit.product_id for hit in group.images} for group in find_duplicates(store, 0.999999)] == [{"mug", "cup"}]


def test_products_of_any_size_are_compared_completely(new_store: NewStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product_copies, "_BATCH", 7)
    monkeypatch.setattr(product_copies, "_BLOCK", 3)
    vectors = np.random.default_rng(0).normal(size=(40, DIM)).astype(np.float32)
    store = new_store()
    store.upsert([a_row(f"p{n % 4}", str(n), unit(*vectors[n % 20])) for n in range(40)])
    assert sorted(len(group.images) for group in find_copies(store, 0.9999)) == 20 * [2]


def test_the_command_finds_a_source_that_was_ingested_twice(tmp_path: Path) -> None:
    for n in range(4):
        draw(tmp_path / "photos" / f"p{n // 2}" / f"{n}.png", 60 * n)
    for name in ("one", "two"):
        lookalike("ingest", "photos", "--encoder", "pixels", "--source-name", name, cwd=tmp_path)
    done = lookalike("duplicates", "--within-products", "--threshold", "1", "--format", "json", cwd=tmp_path)
    groups = [[hit["product_id"] for hit in group["images"]] for group in json.loads(done.stdout)["groups"]]
    assert groups == [["p0", "p0"], ["p0", "p0"], ["p1", "p1"], ["p1", "p1"]]
